"""How many blocks and threads each GPU kernel is launched with, as the headers of kernels/gpu/*.hip state.

The numbers that a kernel and its grid share are constants of kernels/gpu/launch_shapes.h.
"""

import math
from collections.abc import Callable, Iterator, Mapping

from hipgpt.base.kernel_constants import kernel_constants
from hipgpt.base.paths import KERNELS

Sizes = Mapping[str, int]
Grid = tuple[int, int, int]  # blocks along x, y and z
Shape = tuple[Grid, int]  # and the threads of a block
ShapeOf = Callable[[Sizes, int], Shape]  # from a call's sizes and the number of lanes of a wave

CONSTANTS = kernel_constants(KERNELS / "gpu" / "launch_shapes.h")
WIDTH, THREADS, MMA_WAVES = (CONSTANTS[name] for name in ("WIDTH", "THREADS", "MMA_WAVES"))
EMBEDDING_THREADS = CONSTANTS["EMBEDDING_THREADS"]


def _halvings(largest: str, smallest: str) -> Iterator[int]:
    """Yield a constant, its half, and so on down to another constant."""
    side = CONSTANTS[largest]
    while side >= CONSTANTS[smallest]:
        yield side
        side //= 2


TILES = tuple(_halvings("LARGEST_TILE", "SMALLEST_TILE"))  # sides, of matmul.hip


def _ceil(count: int, size: int) -> int:
    return -(-count // size)


def _elements(dimension: str, each: int = 1) -> ShapeOf:
    """A thread for every `each` elements of a dimension."""
    return lambda s, wave: ((_ceil(s[dimension], each * THREADS), 1, 1), THREADS)


def _blocks(count: Callable[[Sizes], int], threads: int = THREADS) -> ShapeOf:
    return lambda s, wave: ((count(s), 1, 1), threads)


def _waves(count: Callable[[Sizes], int], waves: int) -> ShapeOf:
    """Blocks of `waves` waves each."""
    return lambda s, wave: ((count(s), 1, 1), waves * wave)


def _tile_grid(s: Sizes, columns: str, rows: str, side: int) -> Grid:
    return _ceil(s[columns], side), _ceil(s[rows], side), 1


def _simt_gemm(columns: str, rows: str) -> ShapeOf:
    """The largest tiles that give at least MATMUL_BLOCKS blocks, as tile_for in matmul.hip chooses them."""

    def shape(s: Sizes, wave: int) -> Shape:
        grids = [_tile_grid(s, columns, rows, side) for side in TILES]
        large_enough = (grid for grid in grids if math.prod(grid) >= CONSTANTS["MATMUL_BLOCKS"])
        return next(large_enough, grids[-1]), THREADS

    return shape


def _mma_gemm(columns: str, rows: str, side: int, waves: int) -> ShapeOf:
    return lambda s, wave: (_tile_grid(s, columns, rows, side), waves * wave)


def _attention_tiles(s: Sizes) -> int:
    width = next(name for name in ("NARROW", "WIDE", "WIDEST") if s["D"] <= CONSTANTS[f"{name}_CHANNELS"])
    return s["B"] * s["H"] * _ceil(s["S"], CONSTANTS[f"{width}_TILE"])


def _resident_tiles(s: Sizes) -> int:
    return s["B"] * s["H"] * _ceil(s["S"], MMA_WAVES * CONSTANTS["MMA_TILE"])


def _embedding_backward(s: Sizes, wave: int) -> Shape:
    blocks = _ceil(s["V"], CONSTANTS["EMBEDDING_IDS"]) + s["S"]
    return (blocks, _ceil(s["C"], EMBEDDING_THREADS), 1), EMBEDDING_THREADS


def _token_gradients(s: Sizes, wave: int) -> Shape:
    blocks = _ceil(s["V"], CONSTANTS["EMBEDDING_IDS"])
    return (blocks, _ceil(s["C"], EMBEDDING_THREADS), 1), EMBEDDING_THREADS


def _pairs(count: Callable[[Sizes], int]) -> ShapeOf:
    """A thread for every WIDTH pairs of channels of `count` heads, or for each pair if WIDTH does not divide them."""

    def blocks(s: Sizes) -> int:
        pairs = s["D"] // 2
        each = WIDTH if pairs % WIDTH == 0 else 1
        return _ceil(count(s) * (pairs // each), THREADS)

    return _blocks(blocks)


def _neighbours(s: Sizes) -> int:
    """A thread for every WIDTH channels of each row."""
    return _ceil(s["N"] * _ceil(s["C"], WIDTH), THREADS)


def _squares(matrices: str, rows: str, columns: str, side: str) -> ShapeOf:
    """A block for every square of each matrix, all along x."""
    return _blocks(lambda s: s[matrices] * math.prod(_tile_grid(s, columns, rows, CONSTANTS[side])))


SIMT: Mapping[str, ShapeOf] = {
    "advance": _waves(lambda s: 1, waves=1),
    "build_batch": _blocks(lambda s: _ceil(s["B"] * s["S"], THREADS)),
    "embedding_forward": _blocks(lambda s: s["B"] * s["S"], EMBEDDING_THREADS),
    "embedding_backward": _embedding_backward,
    "token_embedding_forward": _blocks(lambda s: s["N"], EMBEDDING_THREADS),
    "token_embedding_backward": _token_gradients,
    "layernorm_forward": lambda s, wave: ((_ceil(s["N"], THREADS // wave), 1, 1), THREADS),
    "layernorm_backward": _blocks(lambda s: s["K"]),
    "add_partials": _blocks(lambda s: _ceil(s["C"], CONSTANTS["NORM_COLUMNS"])),
    "rmsnorm_forward": lambda s, wave: ((_ceil(s["N"], THREADS // wave), 1, 1), THREADS),
    "rmsnorm_backward": _blocks(lambda s: s["K"]),
    "add_rows": _blocks(lambda s: _ceil(s["C"], CONSTANTS["NORM_COLUMNS"])),
    "head_norm_forward": lambda s, wave: ((_ceil(s["N"] * s["G"], THREADS // wave), 1, 1), THREADS),
    "head_norm_backward": _blocks(lambda s: s["K"]),
    "rotation_table": _blocks(lambda s: _ceil(s["B"] * s["S"] * s["D"] // 2, THREADS)),
    "rotary_forward": _pairs(lambda s: s["B"] * s["S"] * 3 * s["H"]),
    "rotary_backward": _pairs(lambda s: s["B"] * s["S"] * s["G"]),
    "swiglu_forward": _blocks(_neighbours),
    "swiglu_backward": _blocks(_neighbours),
    "matmul_forward": _simt_gemm("O", "N"),
    "matmul_gelu_forward": _simt_gemm("O", "N"),
    "matmul_relu_forward": _simt_gemm("O", "N"),
    "matmul_relu2_forward": _simt_gemm("O", "N"),
    "matmul_backward_input": _simt_gemm("C", "N"),
    "matmul_activation_backward_input": _simt_gemm("C", "N"),
    "matmul_backward_weight": _simt_gemm("C", "O"),
    "attention_forward": _blocks(_attention_tiles),
    "attention_delta": _blocks(lambda s: _ceil(s["B"] * s["H"] * s["S"], THREADS // _ceil(s["D"], WIDTH))),
    "attention_backward": _blocks(lambda s: 2 * _attention_tiles(s)),
    "attention_decode": _blocks(lambda s: s["B"] * s["H"], CONSTANTS["DECODE_THREADS"]),
    "fill_cache": _blocks(lambda s: _ceil(s["K"] * s["S"] * s["H"] * s["D"], THREADS)),
    "dropout": _elements("N", each=CONSTANTS["PHILOX_NUMBERS"]),
    "zero": _elements("N"),
    "cross_entropy_forward": _blocks(lambda s: s["N"]),
    "cross_entropy_training": _blocks(lambda s: s["N"]),
    "draw_token": _blocks(lambda s: s["B"], CONSTANTS["SAMPLING_THREADS"]),
    "add_sum": _blocks(lambda s: 1),
    "sum_of_squares": _blocks(lambda s: s["K"]),
    "gradient_norm": _blocks(lambda s: 1),
    "adamw": _elements("P"),
    "muon_direction": _squares("M", "O", "C", "MUON_TILE"),
    "newton_schulz_gram": _squares("M", "R", "R", "MUON_GEMM_TILE"),
    "newton_schulz_polynomial": _squares("M", "R", "R", "MUON_GEMM_TILE"),
    "newton_schulz_first_polynomial": _squares("M", "R", "R", "MUON_GEMM_TILE"),
    "newton_schulz_step": _squares("M", "R", "L", "MUON_GEMM_TILE"),
    "muon_update": _squares("M", "O", "C", "MUON_TILE"),
    "round_weights": _elements("P"),
    "widen_gradients": _elements("P"),
    "record_step": _waves(lambda s: 1, waves=1),
}


def _waves_of_columns(s: Sizes, wave: int) -> Shape:
    has_many = s["N"] == 1 and s["O"] >= CONSTANTS["MANY_OUTPUTS"]
    columns = CONSTANTS["COLUMNS_OF_MANY"] if has_many else 1
    return (_ceil(s["O"], THREADS // wave * columns), 1, 1), THREADS


MATMUL_ROWS: Mapping[str, ShapeOf] = {
    f"{name}_forward": _waves_of_columns for name in ("matmul", "matmul_gelu", "matmul_relu", "matmul_relu2")
}


def cross_entropy_large(threads: int) -> Mapping[str, ShapeOf]:
    """Return the shape of a large vocabulary's loss: a block of so many threads for each row."""
    return {"cross_entropy_training": _blocks(lambda s: s["N"], threads)}


def matmul_mma(side: int, waves: int = MMA_WAVES) -> Mapping[str, ShapeOf]:
    """Return the shapes of a linear layer's GEMMs with block tiles of one side, by blocks of so many waves."""
    forward, backward = _mma_gemm("O", "N", side, waves), _mma_gemm("C", "N", side, waves)
    forwards = ("matmul", "matmul_gelu", "matmul_relu", "matmul_relu2")
    return {
        **{f"{name}_forward": forward for name in forwards},
        **{f"{name}_backward_input": backward for name in ("matmul", "matmul_activation")},
        "matmul_backward_weight": _mma_gemm("C", "O", side, waves),
    }


def muon_mma(side: int, waves: int = MMA_WAVES) -> Mapping[str, ShapeOf]:
    """Return the shapes of Muon's GEMMs, as matmul_mma does."""

    def per_matrix(columns: str) -> ShapeOf:
        def shape(s: Sizes, wave: int) -> Shape:
            across, down, _ = _tile_grid(s, columns, "R", side)
            return (across, down, s["M"]), waves * wave

        return shape

    names = ("gram", "polynomial", "first_polynomial")
    return {f"newton_schulz_{name}": per_matrix("R") for name in names} | {"newton_schulz_step": per_matrix("L")}


ATTENTION_MMA: Mapping[str, ShapeOf] = {
    "attention_forward": _waves(_resident_tiles, MMA_WAVES),
    "attention_backward": _waves(lambda s: 2 * _resident_tiles(s), MMA_WAVES),
}


def amd_attention(rows: int) -> Mapping[str, ShapeOf]:
    """Return the shapes of AMD's attention, forward and backward, whose blocks own so many rows of a head."""

    def blocks(s: Sizes) -> int:
        return s["B"] * s["H"] * _ceil(s["S"], rows)

    return {
        "attention_forward": _waves(blocks, MMA_WAVES),
        "attention_backward": _waves(lambda s: 2 * blocks(s), MMA_WAVES),
    }


def _tma_attention(s: Sizes, wave: int) -> Shape:
    tiles = s["B"] * s["H"] * _ceil(s["S"], CONSTANTS["TMA_QUERIES"])
    return (min(tiles, CONSTANTS["TMA_CLUSTER"] * CONSTANTS["TMA_CLUSTERS"]), 1, 1), CONSTANTS["TMA_THREADS"]


ATTENTION_TMA: Mapping[str, ShapeOf] = {
    "attention_forward": _tma_attention,
    "attention_backward": _tma_attention,
}
