"""Muon's GEMMs by kernels/gpu/muon_tma.hip: all matrices of a call are one tall GEMM of persistent blocks."""

from hipgpt.compute.backends.launch_shapes import CONSTANTS, Shape, Sizes
from hipgpt.compute.backends.persistent_gemm import CLUSTER, CLUSTER_ROWS, CLUSTERS, COLUMNS, ROWS, STAGE_K, Boxes
from hipgpt.compute.contract import Op

LEAST_TILES = 44  # for so few, smaller tiles on more blocks are faster
SHARED_BYTES = CONSTANTS["TMA_SHARED_BYTES"]
BOXES = {
    "newton_schulz_gram": (Boxes("x", ROWS), Boxes("gram", ROWS // 2)),
    "newton_schulz_polynomial": (Boxes("gram", ROWS), Boxes("polynomial", ROWS // 2)),
    "newton_schulz_step": (Boxes("polynomial", ROWS), Boxes("x", STAGE_K), Boxes("y", ROWS // 2)),
}
assert ROWS == COLUMNS // CLUSTER, "one map serves a matrix that is both operands"


def boxes_of(op: Op) -> tuple[Boxes, ...]:
    """Return the operands of a GEMM and its output."""
    return BOXES[op.name]


def suits(op: Op, sizes: Sizes) -> bool:
    """Return whether no tile has rows or columns of two matrices, and whether there are enough tiles."""
    sides = [size for name, size in sizes.items() if name != "M"]
    whole = all(side % CLUSTER_ROWS == 0 and side % COLUMNS == 0 for side in sides)
    return whole and _tiles(op.name, sizes) >= LEAST_TILES


def shape(op: str, sizes: Sizes, wave: int) -> Shape:
    """Return the launch of a call: a cluster for each tile, or as many as run at once."""
    return (min(_tiles(op, sizes), CLUSTERS) * CLUSTER, 1, 1), CONSTANTS["TMA_THREADS"]


def _tiles(op: str, sizes: Sizes) -> int:
    columns = sizes["L" if op == "newton_schulz_step" else "R"]
    return sizes["M"] * (sizes["R"] // CLUSTER_ROWS) * (columns // COLUMNS)
