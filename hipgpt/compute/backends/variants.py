"""Which source serves an op on an architecture, dtype and size: a table, first match wins."""

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hipgpt.base.errors import UserError
from hipgpt.compute.backends import decode_blocks, stacked_gemm, token_layers
from hipgpt.compute.backends.launch_shapes import (
    ATTENTION_MMA,
    ATTENTION_TMA,
    CONSTANTS,
    CROSS_ENTROPY_LARGE,
    MATMUL_ROWS,
    SIMT,
    WIDTH,
    Sizes,
    amd_attention,
    matmul_mma,
    muon_mma,
)
from hipgpt.compute.backends.persistent_gemm import Boxes, PersistentGemm, boxes_of
from hipgpt.compute.backends.sorted_embedding import SortedEmbedding
from hipgpt.compute.backends.split_k import MOST_SLICES, SplitK
from hipgpt.compute.backends.variant import Variant
from hipgpt.compute.catalogue import ON_GPUS
from hipgpt.compute.contract import Op
from hipgpt.compute.tensor import DType

ANY = r".*"
SM80_UP = r"sm_([89]|1\d)\da?"
HOPPER = r"sm_90a"
CDNA2_UP = r"gfx90a|gfx94\d|gfx950"
RDNA3 = r"gfx110[0-3]|gfx115[0-3]"
RDNA4 = r"gfx120[01]"  # not gfx1250, which has other matrix instructions
ENOUGH_TMA_ITEMS = 44  # tiles or slices of them, for clusters of persistent blocks
ENOUGH_TMA_STAGES = 4  # of K, for each cluster
ENOUGH_TOKENS_TO_SORT = 8192
LARGE_VOCABULARY = 16384
CPU_AVX512_BF16, CPU_AMX = {"CPU_AVX512_BF16": 1}, {"CPU_AMX": 1}  # macros that kernels/cpu/select/*.h choose files by
CHANNELS = (32, 64, CONSTANTS["MOST_CHANNELS"])  # of a head, rounded up


def holds_a_head(op: Op, sizes: Sizes) -> bool:
    """Return whether the widest tiles have room for a head's channels; true of an op without heads."""
    return sizes.get("D", 0) <= CHANNELS[-1]


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


def _persistent_gemm() -> Variant:
    """The row for large GEMMs on Hopper, which take tiles by the copy engine."""
    schedule = PersistentGemm(ENOUGH_TMA_ITEMS, ENOUGH_TMA_STAGES)
    return Variant(
        r"matmul_.*", HOPPER, "bf16", "gpu/matmul_tma.hip",
        suits=schedule.suits, shared_bytes=CONSTANTS["TMA_SHARED_BYTES"], schedule=schedule, boxes=boxes_of,
    )  # fmt: skip


def _stacked_newton_schulz() -> Variant:
    """The row for Muon's GEMMs of large matrices on Hopper, which take tiles by the copy engine."""

    def suits(op: Op, sizes: Sizes) -> bool:
        return stacked_gemm.tiles(op, sizes) >= ENOUGH_TMA_ITEMS

    return Variant(
        r"newton_schulz_(gram|polynomial|step)", HOPPER, "bf16", "gpu/muon_tma.hip",
        suits=suits, shapes=stacked_gemm.SHAPES, shared_bytes=CONSTANTS["TMA_SHARED_BYTES"],
        boxes=stacked_gemm.boxes_of,
    )  # fmt: skip


def _decode_blocks() -> Variant:
    """The row for a decoder's blocks in one launch."""

    def for_sizes(row: Variant, sizes: Sizes) -> Variant:
        return replace(row, macros=decode_blocks.macros(sizes), shared_bytes=decode_blocks.shared_bytes(sizes))

    return Variant(
        "decode_blocks", HOPPER, "bf16", "gpu/decode_blocks.hip", shapes={"decode_blocks": decode_blocks.shape},
        suits=lambda op, sizes: decode_blocks.suits(sizes), together=True, for_sizes=for_sizes,
    )  # fmt: skip


def _token_layers() -> Variant:
    """The row for a narrow model's layers between two attentions."""

    def for_sizes(row: Variant, sizes: Sizes) -> Variant:
        return replace(row, macros=token_layers.macros(sizes))

    return Variant(
        r"token_layers_(forward|backward)", HOPPER, "bf16", "gpu/token_layers.hip", shapes=token_layers.SHAPES,
        suits=lambda op, sizes: token_layers.suits(sizes), for_sizes=for_sizes, boxes=token_layers.boxes_of,
        shared_bytes=CONSTANTS["TOKEN_LAYERS_SHARED_BYTES"],
    )  # fmt: skip


def _attention(arch: str, mma: Mapping[str, int], channels: int) -> Variant:
    """A row for heads of at most so many channels."""

    def fits_a_head(op: Op, sizes: Sizes) -> bool:
        return sizes["D"] <= channels

    return Variant(
        r"attention_(forward|backward)", arch, "bf16", "gpu/attention_mma.hip",
        macros={**mma, "HEAD_CHANNELS": channels}, shapes=ATTENTION_MMA, suits=fits_a_head,
    )  # fmt: skip


def _amd_attention(arch: str, mma: Mapping[str, int], channels: int, rows: int) -> list[Variant]:
    """The rows of AMD's forward and backward pass for heads of at most so many channels, by blocks of so many rows."""
    row = replace(_attention(arch, {**mma, "ATTENTION_ROWS": rows}, channels), shapes=amd_attention(rows))
    sources = {"attention_forward": "gpu/attention_amd.hip", "attention_backward": "gpu/attention_backward_amd.hip"}
    return [replace(row, op=op, source=source) for op, source in sources.items()]


def _persistent_attention(channels: int) -> Variant:
    """The row for attention on Hopper with heads of exactly so many channels, whose tiles come by the copy engine."""

    def fits(op: Op, sizes: Sizes) -> bool:
        return sizes["D"] == channels and sizes["S"] >= CONSTANTS["TMA_QUERIES"]

    queries_and_outputs = 4 * CONSTANTS["TMA_QUERIES"] * channels  # bytes
    return Variant(
        "attention_forward", HOPPER, "bf16", "gpu/attention_tma.hip",
        macros={"HEAD_CHANNELS": channels}, shapes=ATTENTION_TMA, suits=fits,
        boxes=lambda op: (Boxes("qkv", CONSTANTS["TMA_KEYS"], inner=3),),
        shared_bytes=CONSTANTS["TMA_KEY_VALUE_BYTES"] + queries_and_outputs,
    )  # fmt: skip


def _persistent_attention_backward() -> Variant:
    """The row for the backward pass with heads of 64 channels; its statistics are copied by 16 bytes."""
    return Variant(
        "attention_backward", HOPPER, "bf16", "gpu/attention_backward_tma.hip", shapes=ATTENTION_TMA,
        suits=lambda op, s: s["D"] == 64 and s["S"] >= CONSTANTS["TMA_QUERIES"] and s["S"] % 4 == 0,
        boxes=lambda op: (Boxes("qkv", 64, inner=3), Boxes("dy", 64, inner=2)),
        shared_bytes=CONSTANTS["TMA_BACKWARD_BYTES"],
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
    _sorted_embedding(),
    Variant(
        "cross_entropy_training",
        SM80_UP,
        "bf16",
        "gpu/cross_entropy_large.hip",
        shapes=CROSS_ENTROPY_LARGE,
        suits=lambda op, sizes: sizes["V"] >= LARGE_VOCABULARY,
    ),
    _persistent_gemm(),
    _stacked_newton_schulz(),
    _decode_blocks(),
    _token_layers(),
    *(_persistent_attention(channels) for channels in (64, 128)),
    _persistent_attention_backward(),
    _gemm(HOPPER, {"MAINLOOP_WGMMA": 1}, WGMMA_TILE, CONSTANTS["WGMMA_SHARED_BYTES"]),
    *_mma(SM80_UP, "MMA_SYNC", NVIDIA_TILES),
    *_mma(CDNA2_UP, "MMA_MFMA", CDNA_TILES, rows=128),
    *_mma(RDNA3, "MMA_WMMA_GFX11", RDNA_TILES, rows=64),
    *_mma(RDNA4, "MMA_WMMA_GFX12", RDNA_TILES, rows=64),
    Variant("|".join(ON_GPUS), r"(?!cpu).*", "f32|bf16", "gpu/{family}.hip", shapes=SIMT, suits=holds_a_head),
)


def find_variant(op: Op, arch: str, act: DType, sizes: Sizes) -> Variant:
    """Return the row that serves a call.

    Raises UserError if an attention head is too wide for every row, LookupError if none serves the op at all.
    """
    for variant in VARIANTS:
        if variant.serves(op, arch, act, sizes):
            return variant.for_sizes(variant, sizes) if variant.for_sizes else variant
    if sizes.get("D", 0) > CHANNELS[-1]:
        raise UserError(
            f"{op.name}: heads of {sizes['D']} channels; kernels for GPUs take up to {CHANNELS[-1]}: raise "
            "model.num_heads (heads have model.embed_dim / model.num_heads channels), or set device: cpu"
        )
    raise LookupError(f"{op.name}: no variant for architecture {arch} and dtype {act.label}")


def variants_of(op: Op, arch: str, act: DType) -> list[Variant]:
    """Return every row that serves an op at some size."""
    found = {}
    some = CONSTANTS["MOST_ROWS"], 16, 48, 64, 120, 800, 1 << 14
    for combination in itertools.product(some, repeat=max(1, min(3, len(op.dimensions)))):
        sizes = dict.fromkeys(op.dimensions, combination[-1]) | dict(zip(op.dimensions, combination, strict=False))
        variant = find_variant(op, arch, act, sizes | {"D": min(combination[-1], CHANNELS[-1])})
        found[variant.source, *variant.macros.items()] = variant
    return list(found.values())


def has_matrix_units(arch: str) -> bool:
    """Return whether an architecture has matrix instructions for bf16 that some row uses."""
    return any(variant.dtype == "bf16" and re.fullmatch(variant.arch, arch) for variant in VARIANTS)
