"""The launches of kernels/gpu/token_layers_weights.hip: several GEMMs over the same K, which share the clusters."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hipgpt.compute.backends.launch_shapes import Shape, Sizes
from hipgpt.compute.backends.persistent_gemm import (
    CLUSTER_ROWS,
    CLUSTERS,
    COLUMNS,
    SLOT_BYTES,
    STAGE_K,
    launches_of,
    slicing_cost,
)
from hipgpt.compute.contract import Op


@dataclass(frozen=True)
class GroupedGemm:
    """How the GEMMs C = A B^T of one op are cut along K. gemms: the names of the rows and columns of each C; k: of K.

    All have the same number of slices, so few that each slice of each tile has a cluster of its own.
    """

    gemms: Sequence[tuple[str, str]]
    k: str

    def slices(self, op: Op, sizes: Sizes) -> int:
        """Return the number of slices that takes the least time, none of them empty; ties go to the fewest."""
        tiles, stages = self._tiles(sizes), -(-sizes[self.k] // STAGE_K)
        whole = (s for s in range(1, max(1, CLUSTERS // tiles) + 1) if -(-stages // -(-stages // s)) == s)
        return min(whole, key=lambda slices: -(-stages // slices) + slicing_cost(tiles, slices))

    def workspace_bytes(self, op: Op, sizes: Sizes) -> int:
        """Return the size of the workspace: a slot for each slice of each tile, 0 for a call that is not cut."""
        slices = self.slices(op, sizes)
        return self._tiles(sizes) * slices * SLOT_BYTES if slices > 1 else 0

    def launches(self, op: Op, sizes: Sizes, wave: int, workspace: int | None) -> list[tuple[Shape, list[Any]]]:
        """Return each launch's shape and arguments, as PersistentGemm does."""
        tiles, slices = self._tiles(sizes), self.slices(op, sizes)
        return launches_of(tiles, slices, tiles * slices, workspace)

    def _tiles(self, sizes: Sizes) -> int:
        return sum(-(-sizes[rows] // CLUSTER_ROWS) * -(-sizes[columns] // COLUMNS) for rows, columns in self.gemms)
