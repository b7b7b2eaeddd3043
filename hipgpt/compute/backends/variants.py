"""Which source serves an op on an architecture, dtype and size: a table, first match wins."""

import functools
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hipgpt.base.errors import UserError
from hipgpt.compute.backends import attention_short
from hipgpt.compute.backends.hopper_variants import HALF_OF_SHARED, HOPPER, HOPPER_VARIANTS, LARGE_VOCABULARY
from hipgpt.compute.backends.launch_shapes import (
    ATTENTION_MMA,
    CONSTANTS,
    MATMUL_ROWS,
    SIMT,
    WIDTH,
    Sizes,
    amd_attention,
    cross_entropy_large,
    matmul_mma,
    muon_mma,
)
from hipgpt.compute.backends.sorted_embedding import SortedEmbedding
from hipgpt.compute.backends.split_k import MOST_SLICES, SplitK
from hipgpt.compute.backends.variant import Variant, compiled_for
from hipgpt.compute.catalogue import ON_GPUS
from hipgpt.compute.contract import Op
from hipgpt.compute.tensor import DType

ANY = r".*"
SM80_UP = r"sm_([89]|1\d)\da?"
CDNA2_UP = r"gfx90a|gfx94\d|gfx950"
RDNA3 = r"gfx110[0-3]|gfx115[0-3]"
RDNA4 = r"gfx120[01]"  # not gfx1250, which has other matrix instructions
ENOUGH_TOKENS_TO_SORT = 8192
ANY_NVIDIA = 99 << 10  # bytes of shared memory of a block since sm_80
CPU_AVX512_BF16, CPU_AMX = {"CPU_AVX512_BF16": 1}, {"CPU_AMX": 1}  # macros that kernels/cpu/select/*.h choose files by
CHANNELS = (32, 64, CONSTANTS["WIDE_CHANNELS"])  # of a head, rounded up, for matrix instructions
WIDEST_CHANNELS = CONSTANTS["WIDEST_CHANNELS"]  # of a head


def holds_a_head(op: Op, sizes: Sizes) -> bool:
    """Return whether the smallest tiles have room for a head's channels; true of an op without heads."""
    return sizes.get("D", 0) <= WIDEST_CHANNELS


@dataclass(frozen=True)
class BlockTile:
    """A block tile of GEMMs by matrix instructions. waves: of a block.

    enough_blocks: with fewer, so much of a GPU is idle that a smaller block tile is faster. resident_blocks: how many a
    large GPU of the family runs at once. any_size: whether it serves sizes that are no multiples of WIDTH, and cuts K
    into slices.
    """

    side: int
    waves: int
    enough_blocks: int
    resident_blocks: int
    any_size: bool = True


NVIDIA_TILES = (BlockTile(128, 4, 256, 264), BlockTile(64, 4, 64, 528), BlockTile(32, 4, 0, 528))
WGMMA_TILE = BlockTile(128, 4, 96, 264)
# resident_blocks: of an MI300X with 304 compute units, and of a RX 7900 XTX with 96
CDNA_TILES = (
    BlockTile(256, 8, 228, 304, any_size=False), BlockTile(128, 4, 256, 608), BlockTile(64, 4, 64, 608),
    BlockTile(32, 2, 0, 1216),
)  # fmt: skip
RDNA_TILES = (BlockTile(128, 8, 96, 192), BlockTile(64, 4, 48, 192), BlockTile(32, 4, 0, 384))


def _gemm(arch: str, mainloop: Mapping[str, int], tile: BlockTile, shared_bytes: int = 0) -> Variant:
    """A row for GEMMs with block tiles of one side, by the macros that choose a main loop and its mma."""
    shapes, most_slices = matmul_mma(tile.side, tile.waves), MOST_SLICES if tile.any_size else 1
    split_k = SplitK(tile.side, shapes, tile.enough_blocks, tile.resident_blocks, most_slices)

    def suits(op: Op, sizes: Sizes) -> bool:
        fits = tile.any_size or all(sizes[name] % WIDTH == 0 for name in op.dimensions)
        return fits and split_k.suits(op, sizes)

    return Variant(
        r"matmul_.*", arch, "bf16", "gpu/matmul_mma.hip",
        macros={**mainloop, "BLOCK_TILE": tile.side}, suits=suits, shared_bytes=shared_bytes, schedule=split_k,
    )  # fmt: skip


def _newton_schulz(arch: str, mma: Mapping[str, int], tile: BlockTile) -> Variant:
    """A row for Muon's GEMMs with block tiles of one side."""
    shapes = muon_mma(tile.side, tile.waves)

    def gives_enough_blocks(op: Op, sizes: Sizes) -> bool:
        grid, _ = shapes[op.name](sizes, 1)
        return math.prod(grid) >= tile.enough_blocks

    return Variant(
        r"newton_schulz_.*", arch, "bf16", "gpu/muon_mma.hip",
        macros={**mma, "BLOCK_TILE": tile.side}, shapes=shapes, suits=gives_enough_blocks,
    )  # fmt: skip


def _few_rows() -> Variant:
    """The row for forward passes of so few rows that the weights' bytes are all that counts, on every GPU."""
    return Variant(
        r"matmul_(\w+_)?forward", r"(?!cpu).*", "f32|bf16", "gpu/matmul_rows.hip",
        shapes=MATMUL_ROWS, suits=lambda op, sizes: sizes["N"] <= CONSTANTS["MOST_ROWS"],
    )  # fmt: skip


def _sorted_embedding() -> Variant:
    """The row for the gradients of embeddings of large batches, on every GPU."""
    schedule = SortedEmbedding(ENOUGH_TOKENS_TO_SORT)
    return Variant(
        r"(token_)?embedding_backward", r"(?!cpu).*", "f32|bf16", "gpu/embedding_sorted.hip",
        suits=schedule.suits, schedule=schedule,
    )  # fmt: skip


def _attention(arch: str, mma: Mapping[str, int], channels: int) -> Variant:
    """A row for heads of at most so many channels."""

    def fits_a_head(op: Op, sizes: Sizes) -> bool:
        return sizes["D"] <= channels

    return Variant(
        r"attention_(forward|backward)", arch, "bf16", "gpu/attention_mma.hip",
        macros={**mma, "HEAD_CHANNELS": channels}, shapes=ATTENTION_MMA, suits=fits_a_head,
    )  # fmt: skip


def _short_attention() -> Variant:
    """The row for the forward pass of short sequences."""
    return Variant(
        "attention_forward", SM80_UP, "bf16", "gpu/attention_short.hip", shapes=attention_short.SHAPES,
        suits=lambda op, sizes: attention_short.suits_forward(sizes),
        for_sizes=compiled_for(attention_short.forward_macros, attention_short.forward_bytes),
    )  # fmt: skip


def _short_attention_backward(arch: str, most_bytes: int) -> Variant:
    """A row for the backward pass of heads that fit in so much shared memory."""
    return Variant(
        "attention_short_backward", arch, "bf16", "gpu/attention_short_backward.hip", shapes=attention_short.SHAPES,
        suits=lambda op, sizes: attention_short.suits_backward(sizes, most_bytes),
        for_sizes=compiled_for(attention_short.backward_macros, attention_short.backward_bytes),
    )  # fmt: skip


def _amd_attention(arch: str, mma: Mapping[str, int], channels: int, rows: int) -> list[Variant]:
    """The rows of AMD's forward and backward pass for heads of at most so many channels, by blocks of so many rows."""
    row = replace(_attention(arch, {**mma, "ATTENTION_ROWS": rows}, channels), shapes=amd_attention(rows))
    sources = {"attention_forward": "gpu/attention_amd.hip", "attention_backward": "gpu/attention_backward_amd.hip"}
    return [replace(row, op=op, source=source) for op, source in sources.items()]


def _widest_heads() -> Variant:
    """The row for heads that are too wide for the other tiles, on every GPU."""
    return Variant(
        r"attention_(forward|backward|decode)", r"(?!cpu).*", "f32|bf16", "gpu/attention.hip",
        macros={"HEAD_CHANNELS": WIDEST_CHANNELS}, shapes=SIMT,
        suits=lambda op, sizes: CHANNELS[-1] < sizes["D"] <= WIDEST_CHANNELS,
    )  # fmt: skip


def _mma(arch: str, macro: str, tiles: Sequence[BlockTile], rows: int | None = None) -> list[Variant]:
    """The rows of a family of chips, by the macro that chooses its matrix instruction.

    AMD's main loops also take the number of waves of a GEMM's block, and the rows of a block of attention.
    """
    macros = {tile: {macro: 1, "GEMM_WAVES": tile.waves} if rows else {macro: 1} for tile in tiles}
    gemms = [_gemm(arch, macros[tile], tile) for tile in tiles]
    muon = [_newton_schulz(arch, macros[tile], tile) for tile in tiles if tile.any_size]
    if rows is None:
        return gemms + muon + [_attention(arch, {macro: 1}, channels) for channels in CHANNELS]
    return gemms + muon + [row for channels in CHANNELS for row in _amd_attention(arch, {macro: 1}, channels, rows)]


VARIANTS = (
    Variant(ANY, r"cpu-amx", "bf16", "cpu/{family}.cpp", macros=CPU_AMX),
    Variant(ANY, r"cpu-amx", "f32", "cpu/{family}.cpp", macros=CPU_AMX),
    Variant(ANY, r"cpu-avx512bf16", "bf16", "cpu/{family}.cpp", macros=CPU_AVX512_BF16),
    Variant(ANY, r"cpu.*", "f32|bf16", "cpu/{family}.cpp"),
    _few_rows(),
    _widest_heads(),
    _sorted_embedding(),
    *HOPPER_VARIANTS,
    Variant(
        "cross_entropy_training",
        SM80_UP,
        "bf16",
        "gpu/cross_entropy_large.hip",
        shapes=cross_entropy_large(CONSTANTS["ROW_THREADS"]),
        suits=lambda op, sizes: sizes["V"] >= LARGE_VOCABULARY,
    ),
    _gemm(HOPPER, {"MAINLOOP_WGMMA": 1}, WGMMA_TILE, CONSTANTS["WGMMA_SHARED_BYTES"]),
    _short_attention(),
    _short_attention_backward(HOPPER, HALF_OF_SHARED),
    _short_attention_backward(SM80_UP, ANY_NVIDIA),
    *_mma(SM80_UP, "MMA_SYNC", NVIDIA_TILES),
    *_mma(CDNA2_UP, "MMA_MFMA", CDNA_TILES, rows=128),
    *_mma(RDNA3, "MMA_WMMA_GFX11", RDNA_TILES, rows=64),
    *_mma(RDNA4, "MMA_WMMA_GFX12", RDNA_TILES, rows=64),
    Variant("|".join(ON_GPUS), r"(?!cpu).*", "f32|bf16", "gpu/{family}.hip", shapes=SIMT, suits=holds_a_head),
)


@functools.cache
def _rows_of(op: Op, arch: str, act: DType) -> tuple[Variant, ...]:
    """Return the rows whose patterns match. They do not depend on sizes, so every later call of an op takes them."""
    return tuple(variant for variant in VARIANTS if variant.matches(op, arch, act))


def find_variant(op: Op, arch: str, act: DType, sizes: Sizes) -> Variant:
    """Return the row that serves a call.

    Raises UserError if an attention head is too wide for every row, LookupError if none serves the op at all.
    """
    for variant in _rows_of(op, arch, act):
        if variant.suits(op, sizes):
            return variant.for_sizes(variant, sizes) if variant.for_sizes else variant
    if sizes.get("D", 0) > WIDEST_CHANNELS:
        raise UserError(
            f"{op.name}: heads of {sizes['D']} channels; kernels for GPUs take up to {WIDEST_CHANNELS}: raise "
            "model.num_heads (heads have model.embed_dim / model.num_heads channels), or set device: cpu"
        )
    raise LookupError(f"{op.name}: no variant for architecture {arch} and dtype {act.label}")


def is_served(op: Op, arch: str, act: DType, sizes: Sizes) -> bool:
    """Return whether a row serves a call."""
    return any(variant.suits(op, sizes) for variant in _rows_of(op, arch, act))


def variants_of(op: Op, arch: str, act: DType) -> list[Variant]:
    """Return every row that serves an op at some size."""
    found = {}
    some = CONSTANTS["MOST_ROWS"], 16, 48, 64, 120, 800, 1 << 14, 1 << 16
    for combination in itertools.product(some, repeat=max(1, min(3, len(op.dimensions)))):
        sizes = dict.fromkeys(op.dimensions, combination[-1]) | dict(zip(op.dimensions, combination, strict=False))
        for most in (CHANNELS[-1], WIDEST_CHANNELS):
            variant = find_variant(op, arch, act, sizes | {"D": min(combination[-1], most)})
            found[variant.source, *variant.macros.items()] = variant
    return list(found.values())


def has_matrix_units(arch: str) -> bool:
    """Return whether an architecture has matrix instructions for bf16 that some row uses."""
    return any(variant.dtype == "bf16" and re.fullmatch(variant.arch, arch) for variant in VARIANTS)
