"""The launches of GEMMs by kernels/gpu/gemm/mainloop_tma.h, whose blocks are persistent and read by the copy engine."""

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from hipgpt.compute.backends.launch_shapes import CONSTANTS, WIDTH, Shape, Sizes
from hipgpt.compute.backends.split_k import PHASES
from hipgpt.compute.contract import Op

CLUSTER, CLUSTERS, THREADS = (CONSTANTS[f"TMA_{name}"] for name in ("CLUSTER", "CLUSTERS", "THREADS"))
ROWS, COLUMNS, STAGE_K = (CONSTANTS[f"TMA_{name}"] for name in ("ROWS", "COLUMNS", "STAGE_K"))
CLUSTER_ROWS = CLUSTER * ROWS  # of the tile of a cluster
GEMMS = {  # rows and columns of each C = A B^T, and K, by the end of an op's name
    "forward": ((("N", "O"),), "C"),
    "backward_input": ((("N", "C"),), "O"),
    "backward_weight": ((("O", "C"),), "N"),
    "block_weights": ((("C", "F"), ("G", "C"), ("C", "A"), ("Q", "C")), "N"),
}
SLOT_BYTES = 4 * CLUSTER_ROWS * (COLUMNS + 1)  # f32 sums of a cluster's tile, and of its rows
SUMS_OF_THREAD = 16  # that a thread of the second launch adds up
ENOUGH_ITEMS = 44  # tiles or slices of them, for clusters of persistent blocks
ENOUGH_AREA = 32  # tiles' areas of a weight gradient, each slice counted
ENOUGH_STAGES = 4  # of K, for each cluster
MOST_SLICES, LAUNCH_COST, SLOT_COST = 16, 16, 0.25  # costs in stages of K
T = TypeVar("T")


@dataclass(frozen=True)
class Boxes:
    """An argument as a matrix of bf16 that the copy engine moves in boxes of `rows` rows by 64 columns.

    inner: how many of its last dimensions are the matrix's columns.
    """

    argument: str
    rows: int
    inner: int = 1


OPERANDS = {  # rows of a box: of A and of a block's half of B if K is contiguous in memory, otherwise of K
    "forward": (Boxes("x", ROWS), Boxes("weight", COLUMNS // CLUSTER)),
    "backward_input": (Boxes("dy", ROWS), Boxes("weight", STAGE_K)),
    "backward_weight": (Boxes("dy", STAGE_K), Boxes("x", STAGE_K)),
}


@dataclass(frozen=True)
class PersistentGemm:
    """How these GEMMs are cut along K.

    The model estimates a GEMM's time in stages of K, for T tiles of S stages each on C = CLUSTERS clusters, which
    compute T * s slices in turns. Sums of slices go through memory, and a second launch adds them up:

        time(s) = ceil(T * s / C) * ceil(S / s)  +  (LAUNCH_COST + SLOT_COST * T * s  if s > 1)
    """

    def suits(self, op: Op, sizes: Sizes) -> bool:
        """Return whether a call has rows that the copy engine can address, and enough work for all clusters.

        That is ENOUGH_ITEMS tiles, and ENOUGH_STAGES stages of K for each cluster. Each slice counts as a tile. For the
        gradient of a weight, the area of ENOUGH_AREA tiles is enough, because other launches run beside it.
        """
        if any(sizes[name] % WIDTH for name in op.dimensions):
            return False
        ((rows, columns),), _ = _of_op(GEMMS, op)
        tiles, slices = self._tiles(op, sizes), self.slices(op, sizes)
        large = sizes[rows] * sizes[columns] * slices >= ENOUGH_AREA * CLUSTER_ROWS * COLUMNS
        enough_tiles = tiles * slices >= ENOUGH_ITEMS or (op.name.endswith("backward_weight") and large)
        return enough_tiles and tiles * self._stages(op, sizes) >= ENOUGH_STAGES * CLUSTERS

    def runs_at_once(self, op: Op, sizes: Sizes) -> bool:
        """Return whether each slice of each tile has a cluster."""
        return self._tiles(op, sizes) * self.slices(op, sizes) <= CLUSTERS

    def fills_all_clusters(self, op: Op, sizes: Sizes) -> bool:
        """Return whether every cluster has a tile, and none is cut."""
        return self._tiles(op, sizes) >= CLUSTERS and self.slices(op, sizes) == 1

    def slices(self, op: Op, sizes: Sizes) -> int:
        """Return the number of slices that takes the least time, none of them empty; ties go to the fewest."""
        tiles, stages = self._tiles(op, sizes), self._stages(op, sizes)

        def time(slices: int) -> float:
            cost = LAUNCH_COST + SLOT_COST * tiles * slices if slices > 1 else 0
            return -(-tiles * slices // CLUSTERS) * -(-stages // slices) + cost

        return min((s for s in range(1, MOST_SLICES + 1) if -(-stages // -(-stages // s)) == s), key=time)

    def workspace_bytes(self, op: Op, sizes: Sizes) -> int:
        """Return the size of the workspace: a slot for each slice of each tile, 0 for a call that is not cut."""
        slices = self.slices(op, sizes)
        return self._tiles(op, sizes) * slices * SLOT_BYTES if slices > 1 else 0

    def launches(self, op: Op, sizes: Sizes, wave: int, workspace: int | None) -> list[tuple[Shape, list[Any]]]:
        """Return each launch's shape and arguments, the fields of struct SplitK in kernels/gpu/gemm/split_k.h.

        workspace: address of workspace_bytes bytes, None for a call that is not cut.
        """
        tiles, slices = self._tiles(op, sizes), self.slices(op, sizes)
        multiplying = min(tiles * slices, CLUSTERS) * CLUSTER
        if slices == 1:
            return [(_shape(multiplying), _fields(None, "WHOLE_K", slices))]
        sums = tiles * CLUSTER_ROWS * COLUMNS
        adding = -(-sums // (SUMS_OF_THREAD * THREADS * CLUSTER)) * CLUSTER
        return [
            (_shape(multiplying), _fields(workspace, "K_SLICES", slices)),
            (_shape(adding), _fields(workspace, "ADD_SLICES", slices)),
        ]

    @staticmethod
    def _tiles(op: Op, sizes: Sizes) -> int:
        gemms, _ = _of_op(GEMMS, op)
        return sum(-(-sizes[rows] // CLUSTER_ROWS) * -(-sizes[columns] // COLUMNS) for rows, columns in gemms)

    @staticmethod
    def _stages(op: Op, sizes: Sizes) -> int:
        _, k = _of_op(GEMMS, op)
        return -(-sizes[k] // STAGE_K)


def boxes_of(op: Op) -> tuple[Boxes, ...]:
    """Return A and B of a GEMM and its bf16 outputs."""
    outputs = [argument.name for argument in op.arguments if argument.access == "out"]
    return *_of_op(OPERANDS, op), *(Boxes(name, ROWS // 2) for name in outputs)


def _of_op(table: Mapping[str, T], op: Op) -> T:
    return next(value for end, value in table.items() if op.name.endswith(end))


def _shape(blocks: int) -> Shape:
    return (blocks, 1, 1), THREADS


def _fields(workspace: int | None, phase: str, slices: int) -> list[Any]:
    return [ctypes.c_void_p(workspace), ctypes.c_int32(PHASES[phase]), ctypes.c_int32(slices)]
