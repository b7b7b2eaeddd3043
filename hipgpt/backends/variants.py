"""Which source serves an op on an architecture, dtype and size: a table, first match wins."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hipgpt.backends.geometry import ATTENTION_FRAGMENTS, MATMUL_FRAGMENTS, SIMT, Geometry, Sizes
from hipgpt.op import Op
from hipgpt.tensor import DType

ANY = r".*"
SM80_UP = r"sm_([89]|1\d)\d"
CDNA2_UP = r"gfx90a|gfx94\d|gfx950"
RDNA3 = r"gfx11\d\d"
RDNA4 = r"gfx12\d\d"
# side of a product's piece: how many of them make it worth taking, and how many blocks a large GPU runs at a time
PIECES, RESIDENT = {128: 256, 64: 64, 32: 0}, {128: 264, 64: 528, 32: 528}
# of a sum that is cut into parts: terms of each at least; their number; what writing and adding one costs, as terms
PART_TERMS, MOST_PARTS, PART_COST = 256, 16, 400
CHANNELS = (32, 64, 128)  # of a head, rounded up


def always(op: Op, sizes: Sizes) -> bool:
    return True


def whole(op: Op, sizes: Sizes) -> int:
    return 1


@dataclass(frozen=True)
class Variant:
    """A row: patterns of op, architecture and activation dtype; what serves them.

    source: a file in kernels/, `{family}` standing for the op's; geometry: how its kernels are launched, by op.
    fragment: the header of kernels/gpu/fragment that the source includes as fragment.h; side: what it finds as SIDE in
    side.h; suits: which sizes that is for; parts: into how many parts its sums are cut, which are added by `add_parts`.
    """

    op: str
    arch: str
    dtype: str
    source: str
    geometry: Mapping[str, Geometry] | None = None
    fragment: str | None = None
    side: int | None = None
    suits: Callable[[Op, Sizes], bool] = always
    parts: Callable[[Op, Sizes], int] = whole

    def serves(self, op: Op, arch: str, act: DType, sizes: Sizes) -> bool:
        wanted = ((self.op, op.name), (self.arch, arch), (self.dtype, act.label))
        return all(re.fullmatch(pattern, value) for pattern, value in wanted) and self.suits(op, sizes)

    def source_of(self, op: Op) -> str:
        return self.source.format(family=op.family)


def _product(arch: str, fragment: str, side: int) -> Variant:
    geometry = MATMUL_FRAGMENTS[side]

    def pieces(op: Op, sizes: Sizes) -> int:
        (columns, rows, _), _ = geometry[op.name](sizes, 1)
        return columns * rows

    def most_parts(op: Op, sizes: Sizes) -> int:
        if op.name != "matmul_backward_weight":
            return 1
        return min(max(1, sizes["N"] // PART_TERMS), MOST_PARTS)

    def gives_enough_blocks(op: Op, sizes: Sizes) -> bool:
        return pieces(op, sizes) * most_parts(op, sizes) >= PIECES[side]

    def parts(op: Op, sizes: Sizes) -> int:
        """Return the number of parts that takes the least time, RESIDENT blocks at a time; of equals the fewest."""
        blocks = pieces(op, sizes)

        def time(count: int) -> float:
            turns = -(-blocks * count // RESIDENT[side])
            return turns * sizes["N"] / count + PART_COST * count * blocks / RESIDENT[side]

        return min(range(1, most_parts(op, sizes) + 1), key=time)

    source = "gpu/matmul_fragments.hip"
    return Variant(r"matmul_.*", arch, "bf16", source, geometry, fragment, side, gives_enough_blocks, parts)


def _attention(arch: str, fragment: str, channels: int) -> Variant:
    def holds_a_head(op: Op, sizes: Sizes) -> bool:
        return sizes["D"] <= channels

    names, source = r"attention_(forward|backward)", "gpu/attention_fragments.hip"
    return Variant(names, arch, "bf16", source, ATTENTION_FRAGMENTS, fragment, channels, holds_a_head)


def _fragments(arch: str, fragment: str) -> list[Variant]:
    products = [_product(arch, fragment, side) for side in PIECES]
    return products + [_attention(arch, fragment, channels) for channels in CHANNELS]


VARIANTS = (
    Variant(op=ANY, arch="cpu", dtype="f32", source="cpu/{family}.cpp"),
    *_fragments(SM80_UP, "mma.h"),
    *_fragments(CDNA2_UP, "mfma.h"),
    *_fragments(RDNA3, "wmma_gfx11.h"),
    *_fragments(RDNA4, "wmma_gfx12.h"),
    Variant(op=ANY, arch=r"(?!cpu).*", dtype="f32|bf16", source="gpu/{family}.hip", geometry=SIMT),
)


def find_variant(op: Op, arch: str, act: DType, sizes: Sizes) -> Variant:
    """Return the row that serves a call. Raises LookupError if none does."""
    for variant in VARIANTS:
        if variant.serves(op, arch, act, sizes):
            return variant
    raise LookupError(f"{op.name}: no variant for architecture {arch} and dtype {act.label}")


def variants_of(op: Op, arch: str, act: DType) -> list[Variant]:
    """Return every row that serves an op at some size."""
    found = {}
    for size in (1, 48, 96, 1 << 10, 1 << 14):
        sizes = dict.fromkeys(op.dimensions, size) | {"D": min(size, 128)}
        variant = find_variant(op, arch, act, sizes)
        found[variant.source, variant.side] = variant
    return list(found.values())


def has_fragments(arch: str) -> bool:
    """Return whether an architecture has matrix units that a fragment drives."""
    return any(variant.fragment and re.fullmatch(variant.arch, arch) for variant in VARIANTS)
