"""Where attention_short.hip and attention_short_backward.hip serve a head, and how they are launched."""

from collections.abc import Mapping

from hipgpt.compute.backends.launch_shapes import CONSTANTS, WIDTH, Shape, ShapeOf, Sizes

TILE, MOST_ROWS, MOST_CHANNELS = (CONSTANTS[name] for name in ("MMA_TILE", "SHORT_ROWS", "SHORT_CHANNELS"))
NARROW = 32
ACT_BYTES, STATISTICS_BYTES = 2, 8  # of an activation; of a query's logsumexp and delta
SCHEDULERS = 4  # of a multiprocessor; a block has a wave for each, because all waves bring rows to shared memory


def _channels(sizes: Sizes) -> int:
    """Return D rounded up to the channels that the kernels are compiled for."""
    return NARROW if sizes["D"] <= NARROW else MOST_CHANNELS


def _tiles(sizes: Sizes) -> int:
    return -(-sizes["S"] // TILE)


def _key_tiles(sizes: Sizes) -> int:
    """Return how many tiles a wave owns at once in backward: two if its registers hold them and all waves have some."""
    return 2 if _channels(sizes) == NARROW and _tiles(sizes) > 2 * SCHEDULERS else 1


def _groups(sizes: Sizes) -> int:
    """Return the number of groups of tiles in backward."""
    return -(-_tiles(sizes) // _key_tiles(sizes))


def forward_macros(sizes: Sizes) -> Mapping[str, int]:
    """Return the sizes that the forward kernel is compiled for."""
    return {"HEAD_CHANNELS": _channels(sizes)}


def backward_macros(sizes: Sizes) -> Mapping[str, int]:
    """Return the sizes that the backward kernel is compiled for."""
    return {"HEAD_CHANNELS": _channels(sizes), "KEY_TILES": _key_tiles(sizes)}


def forward_bytes(sizes: Sizes) -> int:
    """Return the bytes of a head's queries, keys and values."""
    return 3 * _tiles(sizes) * TILE * _channels(sizes) * ACT_BYTES


def backward_bytes(sizes: Sizes) -> int:
    """Return the size of `Memory` in the kernel: statistics and four tensors of rows. ds replaces the last of them."""
    tiles = _groups(sizes) * _key_tiles(sizes)
    rows = tiles * TILE * _channels(sizes) * ACT_BYTES
    pairs = tiles * (tiles - 1) // 2 * TILE * TILE * ACT_BYTES
    return tiles * TILE * STATISTICS_BYTES + 3 * rows + max(rows, pairs)


def suits_forward(sizes: Sizes) -> bool:
    """Return whether the forward kernel serves a head: rows of whole vectors, not too many."""
    return sizes["D"] % WIDTH == 0 and sizes["D"] <= MOST_CHANNELS and sizes["S"] <= MOST_ROWS


def suits_backward(sizes: Sizes, most_bytes: int) -> bool:
    """Return whether the backward kernel serves a head in so much shared memory.

    Longer heads of more than 32 channels are left to the general kernels, of which Hopper's has been measured there.
    """
    narrow_or_short = _channels(sizes) == NARROW or sizes["S"] < CONSTANTS["TMA_QUERIES"]
    return suits_forward(sizes) and narrow_or_short and backward_bytes(sizes) <= most_bytes


def _blocks(sizes: Sizes, groups: int, wave: int) -> Shape:
    """Return a block for each head, with a wave for two groups of tiles."""
    return (sizes["B"] * sizes["H"], 1, 1), max(-(-groups // 2), SCHEDULERS) * wave


SHAPES: Mapping[str, ShapeOf] = {
    "attention_forward": lambda sizes, wave: _blocks(sizes, _tiles(sizes), wave),
    "attention_short_backward": lambda sizes, wave: _blocks(sizes, _groups(sizes), wave),
}
