"""Where kernels/gpu/attention_short.hip serves a head, and how it is launched."""

from collections.abc import Mapping

from hipgpt.compute.backends.launch_shapes import CONSTANTS, WIDTH, Shape, ShapeOf, Sizes

WAVES, TILE = CONSTANTS["SHORT_WAVES"], CONSTANTS["MMA_TILE"]
MOST_CHANNELS = CONSTANTS["SHORT_CHANNELS"]
ACT_BYTES, STATISTICS_BYTES = 2, 8  # of an activation; of a query's logsumexp and delta
SCHEDULERS = 4  # of a multiprocessor


def _tiles(sizes: Sizes) -> int:
    return -(-sizes["S"] // TILE)


def _channels(sizes: Sizes) -> int:
    """Return D rounded up to the channels that the kernel is compiled for."""
    return MOST_CHANNELS // 2 if sizes["D"] <= MOST_CHANNELS // 2 else MOST_CHANNELS


def macros(sizes: Sizes) -> Mapping[str, int]:
    """Return the sizes that the kernel is compiled for."""
    return {"HEAD_CHANNELS": _channels(sizes)}


def shared_bytes(sizes: Sizes) -> int:
    """Return the size of `Memory` in the kernel: statistics and four tensors of rows. ds replaces the last of them."""
    tiles = _tiles(sizes)
    rows = tiles * TILE * _channels(sizes) * ACT_BYTES
    pairs = tiles * (tiles - 1) // 2 * TILE * TILE * ACT_BYTES
    return tiles * TILE * STATISTICS_BYTES + 3 * rows + max(rows, pairs)


def suits(sizes: Sizes, most_bytes: int) -> bool:
    """Return whether the kernel serves a head in so much shared memory: rows of whole vectors, a tile or two a wave."""
    whole = sizes["D"] % WIDTH == 0 and sizes["D"] <= MOST_CHANNELS
    return whole and _tiles(sizes) <= 2 * WAVES and shared_bytes(sizes) <= most_bytes


def _shape(sizes: Sizes, wave: int) -> Shape:
    """Return a block for each head: a wave for two tiles, or for one if that leaves schedulers idle."""
    tiles = _tiles(sizes)
    return (sizes["B"] * sizes["H"], 1, 1), max(-(-tiles // 2), min(tiles, SCHEDULERS)) * wave


SHAPES: Mapping[str, ShapeOf] = {"attention_short_backward": _shape}
