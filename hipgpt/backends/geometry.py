"""How many blocks and threads each GPU kernel is launched with, as the headers of kernels/gpu/*.hip state."""

import math
from collections.abc import Callable, Mapping

Sizes = Mapping[str, int]
Shape = tuple[tuple[int, int], int]  # (blocks along x, blocks along y), threads of a block

DECODE_WAVES, EMBEDDING_THREADS, NORM_COLUMNS, THREADS = 4, 128, 32, 256
MATMUL_TILES, MATMUL_BLOCKS = (128, 64, 32, 16), 128


def _ceil(count: int, size: int) -> int:
    return -(-count // size)


def _elements(dimension: str, each: int = 1) -> Callable[[Sizes, int], Shape]:
    return lambda s, wave: ((_ceil(s[dimension], each * THREADS), 1), THREADS)


def _blocks(count: Callable[[Sizes], int], threads: int = THREADS) -> Callable[[Sizes, int], Shape]:
    return lambda s, wave: ((count(s), 1), threads)


def _tiles(columns: str, rows: str) -> Callable[[Sizes, int], Shape]:
    """The grid of a product: the largest tiles that give at least MATMUL_BLOCKS blocks, as tile_for in matmul.hip."""

    def grid(s: Sizes, tile: int) -> tuple[int, int]:
        return _ceil(s[columns], tile), _ceil(s[rows], tile)

    def shape(s: Sizes, wave: int) -> Shape:
        fitting = (tile for tile in MATMUL_TILES if math.prod(grid(s, tile)) >= MATMUL_BLOCKS)
        return grid(s, next(fitting, MATMUL_TILES[-1])), THREADS

    return shape


def _attention_tiles(s: Sizes) -> int:
    return s["B"] * s["H"] * _ceil(s["S"], 32 if s["D"] <= 64 else 16)


def _rows(s: Sizes, wave: int) -> int:
    return _ceil(s["N"], THREADS // wave)


GEOMETRY: Mapping[str, Callable[[Sizes, int], Shape]] = {
    "embedding_forward": _blocks(lambda s: s["B"] * s["S"], EMBEDDING_THREADS),
    "embedding_backward": _blocks(lambda s: s["B"] * s["S"] + s["S"], EMBEDDING_THREADS),
    "layernorm_forward": lambda s, wave: ((_rows(s, wave), 1), THREADS),
    "layernorm_backward": lambda s, wave: ((_rows(s, wave) + _ceil(s["C"], NORM_COLUMNS), 1), THREADS),
    "matmul_forward": _tiles("O", "N"),
    "matmul_backward_input": _tiles("C", "N"),
    "matmul_backward_weight": _tiles("C", "O"),
    "attention_forward": _blocks(_attention_tiles),
    "attention_backward": _blocks(lambda s: 2 * _attention_tiles(s)),
    "attention_decode": lambda s, wave: ((_ceil(s["B"] * s["H"], DECODE_WAVES), 1), DECODE_WAVES * wave),
    "gelu_forward": _elements("N"),
    "gelu_backward": _elements("N"),
    "relu_forward": _elements("N"),
    "relu_backward": _elements("N"),
    "residual_add": _elements("N"),
    "dropout": _elements("N", each=4),
    "zero": _elements("N"),
    "cross_entropy_forward": _blocks(lambda s: s["N"]),
    "cross_entropy_training": _blocks(lambda s: s["N"]),
    "add_sum": _blocks(lambda s: 1),
    "sum_of_squares": _blocks(lambda s: s["K"]),
    "gradient_norm": _blocks(lambda s: 1),
    "adamw": _elements("P"),
    "record_step": lambda s, wave: ((1, 1), wave),
}
