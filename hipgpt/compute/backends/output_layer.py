"""Where the kernels of kernels/gpu/output_layer_*.hip serve an output layer, and how they are launched."""

from collections.abc import Callable, Mapping

from hipgpt.compute.backends.launch_shapes import CONSTANTS, WIDTH, Shape, ShapeOf, Sizes
from hipgpt.compute.backends.persistent_gemm import Boxes
from hipgpt.compute.contract import Op

TILE = CONSTANTS["OUTPUT_LAYER_TILE"]
CHANNELS = 64, 128
LEAST_ROWS = 1024  # of x and of the weight: with fewer, the largest clusters leave half of the multiprocessors idle
# Clusters of so many blocks that an H100 or H200 runs at once. A cluster stays within one of 8 groups of 14, 16 or 18
# multiprocessors, 132 together; where chips differ in their groups, the fewest.
AT_ONCE = {1: 132, 2: 66, 3: 42, 4: 29, 5: 21, 6: 18, 7: 16, 8: 13}
START_AND_END = 3  # of a block, in the time of a tile that it visits
OWNED_AND_VISITED = {"output_layer_loss": ("N", "V"), "output_layer_weight": ("V", "N")}


def suits(sizes: Sizes) -> bool:
    """Return whether the kernels serve an output layer: C channels, whole vectors of a bias, work for most of a GPU.

    They compute 8*N*C*V operations instead of 6*N*C*V, because both compute the logits. They save the traffic of
    logits, which are otherwise written, read and overwritten by the loss, and read twice: 10*N*V bytes. At 500 TFLOP/s
    and 3 TB/s the operations take less time than the traffic up to C = 800, so the widths that the kernels are written
    for are the limit.
    """
    fits = sizes["C"] in CHANNELS and sizes["V"] % WIDTH == 0
    return fits and min(sizes["N"], sizes["V"]) >= LEAST_ROWS


def _tiles(rows: int) -> int:
    return -(-rows // TILE)


def cluster(owned_tiles: int, visited_tiles: int) -> int:
    """Return how many blocks divide the tiles that are visited: those that take the least time, otherwise the fewest.

    time(blocks) = ceil(owned_tiles / AT_ONCE[blocks]) * (ceil(visited_tiles / blocks) + START_AND_END)
    """

    def time(blocks: int) -> int:
        return -(-owned_tiles // AT_ONCE[blocks]) * (-(-visited_tiles // blocks) + START_AND_END)

    return min(AT_ONCE, key=time)


def _cluster_of(op: str, sizes: Sizes) -> int:
    owned, visited = OWNED_AND_VISITED[op]
    return cluster(_tiles(sizes[owned]), _tiles(sizes[visited]))


def macros_of(op: str) -> Callable[[Sizes], Mapping[str, int]]:
    """Return the function from a call's sizes to those that the kernel of an op is compiled for."""
    return lambda sizes: {"CHANNELS": sizes["C"], "CLUSTER": _cluster_of(op, sizes)}


def _shape(op: str) -> ShapeOf:
    """A cluster of blocks for each tile of rows that they own."""

    def shape(sizes: Sizes, wave: int) -> Shape:
        owned, _ = OWNED_AND_VISITED[op]
        return (_tiles(sizes[owned]) * _cluster_of(op, sizes), 1, 1), CONSTANTS["OUTPUT_LAYER_THREADS"]

    return shape


SHAPES: Mapping[str, ShapeOf] = {op: _shape(op) for op in OWNED_AND_VISITED}


def boxes_of(op: Op) -> tuple[Boxes, ...]:
    """Return the arguments that the copy engine moves."""
    return Boxes("x", TILE), Boxes("weight", TILE)
