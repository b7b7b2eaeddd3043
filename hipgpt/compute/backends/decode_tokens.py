"""Where kernels/gpu/decode_tokens.hip serves a model, and how it is launched: a cluster of blocks holds all weights."""

from collections.abc import Mapping

from hipgpt.compute.backends.decode_blocks import OUTPUTS, TERMS, WARP, hidden
from hipgpt.compute.backends.launch_shapes import CONSTANTS, Shape, Sizes
from hipgpt.compute.device import Workspace
from hipgpt.compute.tensor import DType

CLUSTER, THREADS = CONSTANTS["DECODE_TOKENS_CLUSTER"], CONSTANTS["DECODE_TOKENS_THREADS"]
MOST_SEQUENCES = 14  # of which an H200 runs seven at once
LEAST_MULTIPROCESSORS = 114  # more than 8 groups of 14, so that one has enough for a cluster
MOST_SHARED_BYTES = (227 - 16) << 10  # of a block; drawing takes 8 KB
BARRIERS = 64  # bytes, of three barriers and what aligns them
CHANNELS, HEAD_CHANNELS = (128, 256), (16, 32, 64, 128)


def shape(sizes: Sizes, wave: int) -> Shape:
    """Return how the kernel is launched."""
    return (sizes["N"] * CLUSTER, 1, 1), THREADS


def macros(sizes: Sizes) -> Mapping[str, int]:
    """Return the sizes that the kernel is compiled for."""
    return {
        "CHANNELS": sizes["C"],
        "HIDDEN": hidden(sizes),
        "HEAD_CHANNELS": sizes["D"],
        "LAYERS": sizes["L"],
        "VOCABULARY": sizes["V"],
        "CONTEXT": sizes["T"],
        "SHARED_BYTES": shared_bytes(sizes),
    }


def shared_bytes(sizes: Sizes) -> int:
    """Return the size of struct Memory in the kernel's file, rounded up."""
    C, D, H, F = sizes["C"], sizes["D"], sizes["H"], hidden(sizes)
    own_tokens, own_channels, own_hidden = _own(sizes)
    part = 2 * (3 * D * C + own_channels * D + 2 * own_hidden * C + 9 * C + F)
    output = 2 * own_tokens * (C + 1) + 2 * 2 * C
    sums = 4 * (H + CLUSTER) * C
    logits_and_scores = (2 + 4) * CLUSTER * own_tokens
    inputs = 2 * (C + 4 * D + own_hidden)
    softmaxes = 4 * (THREADS // WARP) * (2 + D)
    total = sizes["L"] * part + output + sums + logits_and_scores + inputs + softmaxes + 4 * sizes["T"] + BARRIERS
    return -(-total // 1024) * 1024


def _own(sizes: Sizes) -> tuple[int, int, int]:
    """Return a block's tokens of the vocabulary, channels of a head's projection, and channels of the hidden layer."""
    tokens = -(-sizes["V"] // (CLUSTER * OUTPUTS)) * OUTPUTS
    return tokens, sizes["C"] * sizes["H"] // CLUSTER, hidden(sizes) // CLUSTER


def suits(sizes: Sizes) -> bool:
    """Return whether the kernel serves a model: its blocks share each layer evenly and hold all weights."""
    if sizes["N"] > MOST_SEQUENCES or sizes["C"] not in CHANNELS or sizes["D"] not in HEAD_CHANNELS:
        return False
    own_hidden, rest = divmod(hidden(sizes), CLUSTER)
    reads_whole_rows = (
        own_hidden == TERMS or own_hidden % (2 * TERMS) == 0
    )  # the lanes of an mma, by 8 or 16 bytes each
    return rest == 0 and reads_whole_rows and shared_bytes(sizes) <= MOST_SHARED_BYTES


def workspace(multiprocessors: int) -> Workspace:
    """Return the function that says whether a GPU of so many multiprocessors serves a model: 1 or 0."""

    def serves(sizes: Sizes, act: DType) -> int:
        return int(act is DType.BF16 and multiprocessors >= LEAST_MULTIPROCESSORS and suits(sizes))

    return serves
