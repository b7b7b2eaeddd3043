"""How many blocks and threads each GPU kernel is launched with, as the headers of kernels/gpu/*.hip state."""

import math
from collections.abc import Callable, Mapping

Sizes = Mapping[str, int]
Shape = tuple[tuple[int, int, int], int]  # blocks along x, y and z, threads of a block
Geometry = Callable[[Sizes, int], Shape]  # of a call's sizes and the width of a wave

DECODE_WAVES, EMBEDDING_THREADS, EMBEDDING_IDS, NORM_COLUMNS, THREADS, WIDTH = 4, 128, 32, 8, 256, 8
MATMUL_TILES, MATMUL_BLOCKS = (128, 64, 32, 16), 128
FRAGMENT_WAVES, FRAGMENT_ROWS, PIECE_SIDES = 4, 64, (128, 64, 32)


def _ceil(count: int, size: int) -> int:
    return -(-count // size)


def _elements(dimension: str, each: int = 1) -> Geometry:
    return lambda s, wave: ((_ceil(s[dimension], each * THREADS), 1, 1), THREADS)


def _blocks(count: Callable[[Sizes], int], threads: int = THREADS) -> Geometry:
    return lambda s, wave: ((count(s), 1, 1), threads)


def _tiles(columns: str, rows: str) -> Geometry:
    """The grid of a product: the largest tiles that give at least MATMUL_BLOCKS blocks, as tile_for in matmul.hip."""

    def grid(s: Sizes, tile: int) -> tuple[int, int, int]:
        return _ceil(s[columns], tile), _ceil(s[rows], tile), 1

    def shape(s: Sizes, wave: int) -> Shape:
        fitting = (tile for tile in MATMUL_TILES if math.prod(grid(s, tile)) >= MATMUL_BLOCKS)
        return grid(s, next(fitting, MATMUL_TILES[-1])), THREADS

    return shape


def _pieces(columns: str, rows: str, side: int) -> Geometry:
    return lambda s, wave: ((_ceil(s[columns], side), _ceil(s[rows], side), 1), FRAGMENT_WAVES * wave)


def _attention_tiles(s: Sizes) -> int:
    return s["B"] * s["H"] * _ceil(s["S"], 32 if s["D"] <= 64 else 16)


def _fragment_heads(times: int) -> Geometry:
    return lambda s, wave: ((times * s["B"] * s["H"] * _ceil(s["S"], FRAGMENT_ROWS), 1, 1), FRAGMENT_WAVES * wave)


def _embedding_backward(s: Sizes, wave: int) -> Shape:
    blocks = _ceil(s["V"], EMBEDDING_IDS) + s["S"]
    return (blocks, _ceil(s["C"], EMBEDDING_THREADS), 1), EMBEDDING_THREADS


SIMT: Mapping[str, Geometry] = {
    "advance": lambda s, wave: ((1, 1, 1), wave),
    "build_batch": _blocks(lambda s: _ceil(s["B"] * s["S"], THREADS)),
    "embedding_forward": _blocks(lambda s: s["B"] * s["S"], EMBEDDING_THREADS),
    "embedding_backward": _embedding_backward,
    "layernorm_forward": lambda s, wave: ((_ceil(s["N"], THREADS // wave), 1, 1), THREADS),
    "layernorm_backward": _blocks(lambda s: s["K"]),
    "add_partials": _blocks(lambda s: _ceil(s["C"], NORM_COLUMNS)),
    "matmul_forward": _tiles("O", "N"),
    "matmul_gelu_forward": _tiles("O", "N"),
    "matmul_relu_forward": _tiles("O", "N"),
    "matmul_backward_input": _tiles("C", "N"),
    "matmul_gelu_backward_input": _tiles("C", "N"),
    "matmul_relu_backward_input": _tiles("C", "N"),
    "matmul_backward_weight": _tiles("C", "O"),
    "attention_forward": _blocks(_attention_tiles),
    "attention_delta": _blocks(lambda s: _ceil(s["B"] * s["H"] * s["S"], THREADS // _ceil(s["D"], WIDTH))),
    "attention_backward": _blocks(lambda s: 2 * _attention_tiles(s)),
    "attention_decode": lambda s, wave: ((_ceil(s["B"] * s["H"], DECODE_WAVES), 1, 1), DECODE_WAVES * wave),
    "dropout": _elements("N", each=4),
    "zero": _elements("N"),
    "cross_entropy_forward": _blocks(lambda s: s["N"]),
    "cross_entropy_training": _blocks(lambda s: s["N"]),
    "likeliest_token": _blocks(lambda s: s["B"]),
    "add_sum": _blocks(lambda s: 1),
    "sum_of_squares": _blocks(lambda s: s["K"]),
    "gradient_norm": _blocks(lambda s: 1),
    "adamw": _elements("P"),
    "round_weights": _elements("P"),
    "record_step": lambda s, wave: ((1, 1, 1), wave),
}


def _matmul_fragments(side: int) -> Mapping[str, Geometry]:
    forward, backward = ("matmul", "matmul_gelu", "matmul_relu"), _pieces("C", "N", side)
    geometry = {f"{name}_forward": _pieces("O", "N", side) for name in forward}
    geometry |= {f"{name}_backward_input": backward for name in forward}
    return geometry | {"matmul_backward_weight": _pieces("C", "O", side)}


MATMUL_FRAGMENTS = {side: _matmul_fragments(side) for side in PIECE_SIDES}
ATTENTION_FRAGMENTS: Mapping[str, Geometry] = {
    "attention_forward": _fragment_heads(1),
    "attention_backward": _fragment_heads(2),
}
