"""Split K: how many slices the K dimension of a GEMM by matrix instructions is cut into, and the launches for that.

A GEMM with few block tiles and a long K leaves most of a GPU idle. Slices of K make more blocks, at the price of a
workspace and a second launch that adds the slices up: see kernels/gpu/gemm/split_k.h.
"""

import ctypes
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hipgpt.base.kernel_constants import kernel_constants
from hipgpt.base.paths import KERNELS
from hipgpt.compute.backends.launch_shapes import WIDTH, Shape, ShapeOf, Sizes
from hipgpt.compute.contract import Op

PHASES = kernel_constants(KERNELS / "gpu" / "gemm" / "split_k.h")
K_DIMENSION = {"forward": "C", "backward_input": "O", "backward_weight": "N"}  # by the end of an op's name
LEAST_K, MOST_SLICES = 256, 32
SLICE_COST, LAUNCH_COST = 600, 200


@dataclass(frozen=True)
class SplitK:
    """How GEMMs with block tiles of one side are cut. shapes: launch shapes by op; enough_blocks: see `suits`.

    The model estimates a GEMM's time in units of one step along K, for T block tiles of which R = resident_blocks run
    at once on a large GPU of the family. With s slices, blocks come in ceil(T * s / R) turns of K / s steps each.
    Cutting costs LAUNCH_COST for the second launch and SLICE_COST * T * s / R for writing and adding up the slices:

        time(s) = ceil(T * s / R) * K / s  +  (LAUNCH_COST + SLICE_COST * T * s / R  if s > 1)

    A slice has at least LEAST_K of K, because a shorter one spends its time on filling the pipeline of stages.
    """

    side: int
    shapes: Mapping[str, ShapeOf]
    enough_blocks: int
    resident_blocks: int
    most_slices: int = MOST_SLICES

    def suits(self, op: Op, sizes: Sizes) -> bool:
        """Return whether a call gives at least enough_blocks blocks, cut into as many slices as are allowed."""
        return self._tiles(op, sizes) * self._most_slices(op, sizes) >= self.enough_blocks

    def slices(self, op: Op, sizes: Sizes) -> int:
        """Return the number of slices that takes the least time; ties go to the fewest."""
        tiles, k, resident = self._tiles(op, sizes), _k(op, sizes), self.resident_blocks

        def time(slices: int) -> float:
            turns = -(-tiles * slices // resident)
            cost = LAUNCH_COST + SLICE_COST * slices * tiles / resident if slices > 1 else 0
            return turns * k / slices + cost

        return min(range(1, self._most_slices(op, sizes) + 1), key=time)

    def workspace_bytes(self, op: Op, sizes: Sizes) -> int:
        """Return the size of the workspace, 0 for a call that is not cut: f32 sums of each tile, and of its rows."""
        slices = self.slices(op, sizes)
        return 4 * self._tiles(op, sizes) * slices * (self.side + 1) * self.side if slices > 1 else 0

    def launches(self, op: Op, sizes: Sizes, wave: int, workspace: int | None) -> list[tuple[Shape, list[Any]]]:
        """Return each launch's shape and its last arguments, the fields of the header's struct SplitK.

        workspace: address of workspace_bytes bytes, None for a call that is not cut.
        """
        (columns, rows, _), threads = self.shapes[op.name](sizes, wave)
        slices = self.slices(op, sizes)
        blocks_of = {"WHOLE_K": 1}  # along z, by phase
        if slices > 1:
            blocks_of = {"K_SLICES": slices, "ADD_SLICES": -(-self.side * self.side // (WIDTH * threads))}
        return [
            (((columns, rows, blocks), threads), _fields(workspace, PHASES[phase], slices))
            for phase, blocks in blocks_of.items()
        ]

    def _tiles(self, op: Op, sizes: Sizes) -> int:
        grid, _ = self.shapes[op.name](sizes, 1)
        return math.prod(grid)

    def _most_slices(self, op: Op, sizes: Sizes) -> int:
        return min(max(1, _k(op, sizes) // LEAST_K), self.most_slices)


def _fields(workspace: int | None, phase: int, slices: int) -> list[Any]:
    return [ctypes.c_void_p(workspace), ctypes.c_int32(phase), ctypes.c_int32(slices)]


def _k(op: Op, sizes: Sizes) -> int:
    return next(sizes[name] for end, name in K_DIMENSION.items() if op.name.endswith(end))
