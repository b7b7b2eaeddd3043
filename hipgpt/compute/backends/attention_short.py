"""Where kernels/gpu/attention_short.hip serves a head, and how it is launched."""

from collections.abc import Mapping

from hipgpt.compute.backends.launch_shapes import CONSTANTS, WIDTH, Shape, ShapeOf, Sizes

TILE, MOST_ROWS, MOST_CHANNELS = (CONSTANTS[name] for name in ("MMA_TILE", "SHORT_ROWS", "SHORT_CHANNELS"))
NARROW = 32
KEY_TILES = {NARROW: 2, MOST_CHANNELS: 1}  # that a wave owns at once, so that they fit its registers, by channels
ACT_BYTES, STATISTICS_BYTES = 2, 8  # of an activation; of a query's logsumexp and delta
SCHEDULERS = 4  # of a multiprocessor


def _channels(sizes: Sizes) -> int:
    """Return D rounded up to the channels that the kernel is compiled for."""
    return NARROW if sizes["D"] <= NARROW else MOST_CHANNELS


def _groups(sizes: Sizes) -> int:
    return -(-sizes["S"] // (KEY_TILES[_channels(sizes)] * TILE))


def macros(sizes: Sizes) -> Mapping[str, int]:
    """Return the sizes that the kernel is compiled for."""
    channels = _channels(sizes)
    return {"HEAD_CHANNELS": channels, "KEY_TILES": KEY_TILES[channels]}


def shared_bytes(sizes: Sizes) -> int:
    """Return the size of `Memory` in the kernel: statistics and four tensors of rows. ds replaces the last of them."""
    tiles = _groups(sizes) * KEY_TILES[_channels(sizes)]
    rows = tiles * TILE * _channels(sizes) * ACT_BYTES
    pairs = tiles * (tiles - 1) // 2 * TILE * TILE * ACT_BYTES
    return tiles * TILE * STATISTICS_BYTES + 3 * rows + max(rows, pairs)


def suits(sizes: Sizes, most_bytes: int) -> bool:
    """Return whether the kernel serves a head in so much shared memory: rows of whole vectors, not too many."""
    whole = sizes["D"] % WIDTH == 0 and sizes["D"] <= MOST_CHANNELS
    return whole and sizes["S"] <= MOST_ROWS and shared_bytes(sizes) <= most_bytes


def _shape(sizes: Sizes, wave: int) -> Shape:
    """Return a block for each head: a wave for two groups, or for one if that leaves schedulers idle."""
    groups = _groups(sizes)
    return (sizes["B"] * sizes["H"], 1, 1), max(-(-groups // 2), min(groups, SCHEDULERS)) * wave


SHAPES: Mapping[str, ShapeOf] = {"attention_short_backward": _shape}
