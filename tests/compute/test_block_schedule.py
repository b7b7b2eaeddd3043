"""The order in which blocks of a GEMM visit the tiles of C, by the kernels' own header."""

import ctypes
import shutil
import subprocess

import numpy as np
import pytest
from support.fakehip import build

from hipgpt.base.paths import KERNELS, ROOT

pytestmark = pytest.mark.skipif(not shutil.which(build.COMPILER), reason=f"no {build.COMPILER}")
DIES = {"gfx942": 8, "gfx90a": 1}  # that get blocks in turn and have an L2 each
GRIDS = [(1, 1), (3, 1), (1, 3), (197, 32), (16, 32), (13, 29), (7, 8)]  # columns and rows of tiles


@pytest.fixture(scope="module", params=DIES)
def schedule(request, tmp_path_factory):
    """Return a chip's dies and a function that gives the tile of every block of a grid, in the order of blocks."""
    library = tmp_path_factory.mktemp(request.param) / "probe.so"
    macros = ["-DPLATFORM_HIP=1", "-DWAVE=64", f"-D__{request.param}__=1"]
    options = ["-std=c++17", "-O1", "-w", "-shared", "-fPIC", "-include", str(build.HERE / "kernel.h"), f"-I{KERNELS}"]
    source = ROOT / "tests" / "support" / "block_schedule_probe.cpp"
    subprocess.run([build.COMPILER, *options, *macros, str(source), "-o", str(library)], check=True)
    tiles = ctypes.CDLL(str(library)).tiles

    def tiles_of(columns, rows):
        found = np.zeros((2, columns * rows), np.int32)
        tiles(columns, rows, *(ctypes.c_void_p(one.ctypes.data) for one in found))
        return list(zip(*found.tolist(), strict=True))

    return DIES[request.param], tiles_of


@pytest.mark.parametrize("grid", GRIDS)
def test_every_tile_has_one_block(schedule, grid):
    columns, rows = grid
    _, tiles_of = schedule
    assert sorted(tiles_of(*grid)) == [(row, column) for row in range(rows) for column in range(columns)]


def test_blocks_of_a_die_share_rows_and_columns(schedule):
    dies, tiles_of = schedule
    at_once = tiles_of(197, 32)[:304]  # of an MI300X, whose dies have 38 compute units
    for die in range(dies):
        row, column = zip(*at_once[die::dies], strict=True)
        stripes = len(set(row)) + len(set(column))  # of A and of B, that its L2 must have
        assert stripes <= {8: 8 + 6, 1: 8 + 38}[dies]
