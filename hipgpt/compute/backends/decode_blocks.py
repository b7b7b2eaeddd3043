"""Where kernels/gpu/decode_blocks.hip serves a model, and how it is launched: all blocks of the grid stay resident."""

import math
from collections.abc import Mapping

from hipgpt.base.kernel_constants import kernel_constants
from hipgpt.base.paths import KERNELS
from hipgpt.compute.backends.launch_shapes import CONSTANTS, Grid, Shape, Sizes
from hipgpt.compute.device import Workspace
from hipgpt.compute.tensor import ALIGNMENT_ELEMENTS, DType

SHARED, MMA = (kernel_constants(KERNELS / "gpu" / "decode" / f"{name}.h") for name in ("shared", "multiply_add"))
UNIT, PADDING = SHARED["UNIT"], SHARED["PADDING"]
OUTPUTS, TERMS = MMA["OUTPUTS"], MMA["TERMS"]
THREADS, WARP = CONSTANTS["DECODE_BLOCKS_THREADS"], 32
OTHER_BYTES = 256  # of struct Shared: a few numbers of each sequence


def hidden(sizes: Sizes) -> int:
    """Return the channels of the MLP, from the number of a block's weights."""
    return (sizes["M"] - 4 * sizes["C"] ** 2) // (2 * sizes["C"])


def _blocks(sizes: Sizes) -> int:
    """Return the number of thread blocks: one for OUTPUTS channels, so that all have equal parts of every layer."""
    return sizes["C"] // OUTPUTS


def shape(sizes: Sizes, wave: int) -> Shape:
    """Return how the kernel is launched."""
    grid: Grid = (_blocks(sizes), 1, 1)
    return grid, THREADS


def macros(sizes: Sizes) -> Mapping[str, int]:
    """Return the sizes that the kernel is compiled for."""
    return {
        "SEQUENCES": sizes["N"],
        "CHANNELS": sizes["C"],
        "HIDDEN": hidden(sizes),
        "HEAD_CHANNELS": sizes["D"],
        "SHARED_BYTES": shared_bytes(sizes),
    }


def shared_bytes(sizes: Sizes) -> int:
    """Return the size of struct Shared in the header, rounded up. The rest of a multiprocessor's memory is L1."""
    N, C, D, F, waves = sizes["N"], sizes["C"], sizes["D"], hidden(sizes), THREADS // WARP
    rows = 2 * N * (2 * (C + PADDING) + F + PADDING)
    vectors = 2 * 2 * (9 * C + F)
    partial_sums = 4 * waves * N * max(3 * OUTPUTS, F // C * OUTPUTS)
    softmaxes = 4 * waves * (2 + D)
    query_key_value = 2 * 3 * D
    return -(-(rows + vectors + partial_sums + softmaxes + query_key_value + OTHER_BYTES) // 1024) * 1024


def suits(sizes: Sizes) -> bool:
    """Return whether the kernel serves a model: its blocks share each layer evenly and hold their part of it."""
    C, F, D = sizes["C"], hidden(sizes), sizes["D"]
    if sizes["N"] > CONSTANTS["MOST_ROWS"] or C % ALIGNMENT_ELEMENTS or F % C or D < OUTPUTS or D & (D - 1):
        return False
    most = (CONSTANTS[name] for name in ("MOST_DECODE_CHANNELS", "MOST_DECODE_HIDDEN", "WIDEST_CHANNELS"))
    if any(size > limit for size, limit in zip((C, F, D), most, strict=True)):
        return False
    layers = (3 * C, C), (C, C), (F, C), (C, F)  # outputs, columns
    held = (out // C * math.ceil(columns / (UNIT * (THREADS // WARP))) for out, columns in layers)
    return max(held) <= CONSTANTS["DECODE_HELD"]


def workspace(multiprocessors: int) -> Workspace:
    """Return the function that says how many slots a GPU of so many multiprocessors needs; 0: it has no such kernel."""

    def slots(sizes: Sizes, act: DType) -> int:
        if act is not DType.BF16 or not suits(sizes) or _blocks(sizes) > multiprocessors:
            return 0
        pairs = sizes["N"] * (6 * sizes["C"] + hidden(sizes)) // 2
        return pairs + 1  # and the number of launches

    return slots
