"""Which source serves an op on an architecture, dtype and size: a table, first match wins."""

import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from hipgpt.base.errors import UserError
from hipgpt.compute.backends.launch_shapes import ATTENTION_FRAGMENTS, MATMUL_FRAGMENTS, SIMT, Geometry, Sizes
from hipgpt.compute.catalogue import ON_GPUS
from hipgpt.compute.contract import Op
from hipgpt.compute.tensor import DType

ANY = r".*"
SM80_UP = r"sm_([89]|1\d)\da?"
HOPPER = r"sm_90a"
CDNA2_UP = r"gfx90a|gfx94\d|gfx950"
RDNA3 = r"gfx11\d\d"
RDNA4 = r"gfx12\d\d"
# side of a product's piece: how many of them make it worth taking, and how many blocks a large GPU runs at a time
PIECES, RESIDENT = {128: 256, 64: 64, 32: 0}, {128: 264, 64: 528, 32: 528}
HOPPER_PIECES = 96  # of 128 by wgmma
TERMS = {"forward": "C", "backward_input": "O", "backward_weight": "N"}  # the dimension that a product sums over
# of a sum that is cut into parts: terms of each at least; their number; what cutting costs, as so many terms: writing
# and adding a part of every block at work, and the second launch
PART_TERMS, MOST_PARTS, PART_COST, LAUNCH_COST = 256, 32, 600, 200
CPU_AVX512_BF16, CPU_AMX = {"CPU_AVX512_BF16": 1}, {"CPU_AMX": 1}  # macros that kernels/cpu/select/*.h choose files by
CHANNELS = (32, 64, 128)  # of a head, rounded up


def always(op: Op, sizes: Sizes) -> bool:
    return True


def holds_a_head(op: Op, sizes: Sizes) -> bool:
    """Return whether tiles of the most channels have room for a head's, of an op that has heads."""
    return sizes.get("D", 0) <= CHANNELS[-1]


def whole(op: Op, sizes: Sizes) -> int:
    return 1


@dataclass(frozen=True)
class Variant:
    """A row: patterns of op, architecture and activation dtype; what serves them.

    source: a file in kernels/, `{family}` standing for the op's; geometry: how its kernels are launched, by op.
    headers: what the source includes by these names, files in its folder; side: what it finds as SIDE in side.h.
    suits: which sizes that is for; parts: into how many parts its sums are cut; shared_bytes: of shared memory, beyond
    what the source declares; cuts: whether kernels have the last arguments that `Parts` in product/pieces.h lists.
    macros: what the source is compiled with on a CPU, in addition to the dtype's.
    """

    op: str
    arch: str
    dtype: str
    source: str
    geometry: Mapping[str, Geometry] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    side: int | None = None
    suits: Callable[[Op, Sizes], bool] = always
    parts: Callable[[Op, Sizes], int] = whole
    shared_bytes: int = 0
    cuts: bool = False
    macros: Mapping[str, int] = field(default_factory=dict)

    def serves(self, op: Op, arch: str, act: DType, sizes: Sizes) -> bool:
        wanted = ((self.op, op.name), (self.arch, arch), (self.dtype, act.label))
        return all(re.fullmatch(pattern, value) for pattern, value in wanted) and self.suits(op, sizes)

    def workspace_bytes(self, op: Op, sizes: Sizes) -> int:
        """Return how much memory a call's parts take."""
        (columns, rows, _), _ = self.geometry[op.name](sizes, 1)
        return 4 * columns * rows * self.parts(op, sizes) * (self.side + 1) * self.side

    def source_of(self, op: Op) -> str:
        return self.source.format(family=op.family)


def _product(arch: str, headers: Mapping[str, str], side: int, enough: int, shared_bytes: int = 0) -> Variant:
    geometry = MATMUL_FRAGMENTS[side]

    def pieces(op: Op, sizes: Sizes) -> int:
        (columns, rows, _), _ = geometry[op.name](sizes, 1)
        return columns * rows

    def terms_of(op: Op, sizes: Sizes) -> int:
        return next(sizes[name] for end, name in TERMS.items() if op.name.endswith(end))

    def most_parts(op: Op, sizes: Sizes) -> int:
        return min(max(1, terms_of(op, sizes) // PART_TERMS), MOST_PARTS)

    def gives_enough_blocks(op: Op, sizes: Sizes) -> bool:
        return pieces(op, sizes) * most_parts(op, sizes) >= enough

    def parts(op: Op, sizes: Sizes) -> int:
        """Return the number of parts that takes the least time, RESIDENT blocks at a time; of equals the fewest."""
        blocks, terms = pieces(op, sizes), terms_of(op, sizes)

        def time(count: int) -> float:
            turns = -(-blocks * count // RESIDENT[side])
            cost = LAUNCH_COST + PART_COST * count * blocks / RESIDENT[side] if count > 1 else 0
            return turns * terms / count + cost

        return min(range(1, most_parts(op, sizes) + 1), key=time)

    names, source = r"matmul_.*", "gpu/matmul_units.hip"
    return Variant(names, arch, "bf16", source, geometry, headers, side, gives_enough_blocks, parts, shared_bytes, True)


def _attention(arch: str, fragment: str, channels: int) -> Variant:
    def fits_a_head(op: Op, sizes: Sizes) -> bool:
        return sizes["D"] <= channels

    names, source = r"attention_(forward|backward)", "gpu/attention_units.hip"
    headers = {"fragment.h": fragment}
    return Variant(names, arch, "bf16", source, ATTENTION_FRAGMENTS, headers, channels, fits_a_head)


def _fragments(arch: str, fragment: str) -> list[Variant]:
    headers = {"product.h": "product/fragments.h", "fragment.h": fragment}
    products = [_product(arch, headers, side, enough) for side, enough in PIECES.items()]
    return products + [_attention(arch, fragment, channels) for channels in CHANNELS]


VARIANTS = (
    Variant(ANY, r"cpu-amx", "bf16", "cpu/{family}.cpp", macros=CPU_AMX),
    Variant(ANY, r"cpu-amx", "f32", "cpu/{family}.cpp", macros=CPU_AMX),
    Variant(ANY, r"cpu-avx512bf16", "bf16", "cpu/{family}.cpp", macros=CPU_AVX512_BF16),
    Variant(ANY, r"cpu.*", "f32|bf16", "cpu/{family}.cpp"),
    _product(HOPPER, {"product.h": "product/wgmma.h"}, side=128, enough=HOPPER_PIECES, shared_bytes=96 << 10),
    *_fragments(SM80_UP, "fragment/mma.h"),
    *_fragments(CDNA2_UP, "fragment/mfma.h"),
    *_fragments(RDNA3, "fragment/wmma_gfx11.h"),
    *_fragments(RDNA4, "fragment/wmma_gfx12.h"),
    Variant("|".join(ON_GPUS), r"(?!cpu).*", "f32|bf16", "gpu/{family}.hip", SIMT, suits=holds_a_head),
)


def find_variant(op: Op, arch: str, act: DType, sizes: Sizes) -> Variant:
    """Return the row that serves a call.

    Raises UserError if an attention head is too wide for every row, LookupError if none serves the op at all.
    """
    for variant in VARIANTS:
        if variant.serves(op, arch, act, sizes):
            return variant
    if sizes.get("D", 0) > CHANNELS[-1]:
        raise UserError(
            f"{op.name}: heads of {sizes['D']} channels; kernels for GPUs take up to {CHANNELS[-1]}: raise "
            "model.num_heads (heads have model.embed_dim / model.num_heads channels), or set device: cpu"
        )
    raise LookupError(f"{op.name}: no variant for architecture {arch} and dtype {act.label}")


def variants_of(op: Op, arch: str, act: DType) -> list[Variant]:
    """Return every row that serves an op at some size."""
    found = {}
    for combination in itertools.product((16, 48, 120, 800, 1 << 14), repeat=max(1, min(3, len(op.dimensions)))):
        sizes = dict.fromkeys(op.dimensions, combination[-1]) | dict(zip(op.dimensions, combination, strict=False))
        variant = find_variant(op, arch, act, sizes | {"D": min(combination[-1], 128)})
        found[variant.source, variant.side, *variant.headers.values()] = variant
    return list(found.values())


def has_matrix_units(arch: str) -> bool:
    """Return whether an architecture has units for products in bf16 that some variant drives."""
    return any(variant.dtype == "bf16" and re.fullmatch(variant.arch, arch) for variant in VARIANTS)
