"""Muon's GEMMs by kernels/gpu/muon_tma.hip: all matrices of a call are one tall GEMM of persistent blocks."""

from hipgpt.compute.backends.launch_shapes import CONSTANTS, Shape, ShapeOf, Sizes
from hipgpt.compute.backends.persistent_gemm import CLUSTER, CLUSTER_ROWS, CLUSTERS, COLUMNS, ROWS, STAGE_K, Boxes
from hipgpt.compute.contract import Op

BOXES = {
    "newton_schulz_gram": (Boxes("x", ROWS), Boxes("gram", ROWS // 2)),
    "newton_schulz_polynomial": (Boxes("gram", ROWS), Boxes("polynomial", ROWS // 2)),
    "newton_schulz_step": (Boxes("polynomial", ROWS), Boxes("x", STAGE_K), Boxes("y", ROWS // 2)),
}
assert ROWS == COLUMNS // CLUSTER, "one map serves a matrix that is both operands"


def boxes_of(op: Op) -> tuple[Boxes, ...]:
    """Return the operands of a GEMM and its output."""
    return BOXES[op.name]


def tiles(op: Op, sizes: Sizes) -> int:
    """Return the number of tiles of a call, 0 if one would have rows or columns of two matrices."""
    sides = [sizes[name] for name in op.dimensions if name != "M"]
    whole = all(side % CLUSTER_ROWS == 0 and side % COLUMNS == 0 for side in sides)
    return _tiles(sizes, _columns(op.name)) if whole else 0


def _columns(op: str) -> str:
    return "L" if op == "newton_schulz_step" else "R"


def _tiles(sizes: Sizes, columns: str) -> int:
    return sizes["M"] * (sizes["R"] // CLUSTER_ROWS) * (sizes[columns] // COLUMNS)


def _shape(columns: str) -> ShapeOf:
    """A cluster for each tile, or as many as run at once."""

    def shape(sizes: Sizes, wave: int) -> Shape:
        return (min(_tiles(sizes, columns), CLUSTERS) * CLUSTER, 1, 1), CONSTANTS["TMA_THREADS"]

    return shape


SHAPES = {op: _shape(_columns(op)) for op in BOXES}
