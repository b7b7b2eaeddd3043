"""Where the kernels of kernels/gpu/output_layer_*.hip serve an output layer, and how they are launched."""

from collections.abc import Mapping
from dataclasses import dataclass

from hipgpt.compute.backends.launch_shapes import CONSTANTS, Shape, ShapeOf, Sizes
from hipgpt.compute.backends.persistent_gemm import Boxes
from hipgpt.compute.contract import Op

TILE = CONSTANTS["OUTPUT_LAYER_TILE"]
CHANNELS = 64, 128
LEAST_ROWS = 1024  # of x and of the weight: with fewer, the largest clusters leave half of the multiprocessors idle
# Clusters of so many blocks that an H100 or H200 runs at once. A cluster stays within one group of at most 18
# multiprocessors. Chips with 132 of them differ in their groups: here are the fewest that were counted or follow from
# groups of 14, 16 and 18. One H200 runs 39 clusters of three blocks, 17 of six, 15 of seven or eight.
AT_ONCE = {1: 132, 2: 66, 3: 39, 4: 29, 5: 21, 6: 17, 7: 15, 8: 13}
START_AND_END = 5  # of a block, in the time of a tile that it visits: 9 us and 1.8 us on an H200


def _tiles(rows: int) -> int:
    return -(-rows // TILE)


@dataclass(frozen=True)
class Division:
    """The rows that blocks own, and those that a cluster divides, by their dimensions.

    slack: how many times the least time may be taken with fewer blocks.
    """

    owned: str
    visited: str
    slack: float

    def cluster(self, sizes: Sizes) -> int:
        """Return the number of blocks of a cluster: the fewest whose time is within the slack.

        time(blocks) = ceil(owned tiles / AT_ONCE[blocks]) * (ceil(visited tiles / blocks) + START_AND_END)
        """
        owned, visited = self.owned_tiles(sizes), _tiles(sizes[self.visited])
        times = {
            blocks: -(-owned // at_once) * (-(-visited // blocks) + START_AND_END)
            for blocks, at_once in AT_ONCE.items()
        }
        return next(blocks for blocks, time in times.items() if time <= self.slack * min(times.values()))

    def owned_tiles(self, sizes: Sizes) -> int:
        return _tiles(sizes[self.owned])

    def shape(self, sizes: Sizes, wave: int) -> Shape:
        """A cluster of blocks for each tile of rows that they own."""
        return (self.owned_tiles(sizes) * self.cluster(sizes), 1, 1), CONSTANTS["OUTPUT_LAYER_THREADS"]

    def macros(self, sizes: Sizes) -> Mapping[str, int]:
        """Return the sizes that a kernel is compiled for."""
        return {"CHANNELS": sizes["C"], "CLUSTER": self.cluster(sizes)}


DIVISIONS = {
    "output_layer_loss": Division("N", "V", slack=1),
    "output_layer_weight": Division("V", "N", slack=1.5),  # the backward pass runs at the same time, and needs room
}
SHAPES: Mapping[str, ShapeOf] = {op: division.shape for op, division in DIVISIONS.items()}


def suits(sizes: Sizes) -> bool:
    """Return whether the kernels are written for an output layer's channels, and have enough work for a GPU.

    They compute 8*N*C*V operations instead of 6*N*C*V, because both compute the logits. They save the traffic of
    logits, which are otherwise written, read and overwritten by the loss, and read twice: 10*N*V bytes. At 500 TFLOP/s
    and 3 TB/s the additional operations take less time than that traffic up to C = 800. So the widths that the kernels
    are written for are the limit.
    """
    return sizes["C"] in CHANNELS and min(sizes["N"], sizes["V"]) >= LEAST_ROWS


def boxes_of(op: Op) -> tuple[Boxes, ...]:
    """Return the arguments that the copy engine moves."""
    return Boxes("x", TILE), Boxes("weight", TILE)
