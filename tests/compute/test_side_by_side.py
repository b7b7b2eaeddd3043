"""What a GPU lets run side by side: the launches of a plan, by a driver that only keeps their order."""

import ctypes
import itertools

import pytest

from hipgpt.compute.backends.gpu import WORKSPACES, GpuDevice
from hipgpt.compute.catalogue import MATMUL_BACKWARD_WEIGHT
from hipgpt.compute.communicator import REDUCE
from hipgpt.compute.plan import Plan
from hipgpt.compute.tensor import Arena, DType, Field

SIDE, N = 128, 2048  # a GEMM with so few tiles is cut along N, and needs a workspace
COUNT = WORKSPACES + 2


class RecordingDriver:
    """Launches nothing, and keeps which groups of calls wait for which."""

    backend, name, arch, wave, multiprocessors = "cuda", "a recorder", "sm_90a", 32, 132
    compiler, checks_kernels, stream = "none", False, 0

    def __init__(self, side_by_side: bool):
        self.side_by_side, self._addresses = side_by_side, itertools.count(1 << 20, 1 << 30)

    def compile(self, name, source, headers, macros):
        return b"no code"

    def load(self, image):
        return image

    def function(self, module, name, shared_bytes=0):
        return name

    def allocate(self, size_bytes):
        return next(self._addresses)

    def free(self, address): ...

    def clear(self, address, size_bytes, stream=None): ...

    def launch(self, function, grid, threads, shared_bytes, arguments): ...

    def tensor_map(self, address, rows, columns, box_rows):
        return (ctypes.c_uint64 * 16)()

    def capture(self, groups, earlier):
        self.earlier = earlier
        return lambda: None


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def waits(side_by_side: bool, collective: bool = False) -> list[list[int]]:
    """Return what the gradients of COUNT weights wait for, which share no tensor that they write, and a collective."""
    driver = RecordingDriver(side_by_side)
    device = GpuDevice(driver)
    inputs = Arena(device, "inputs", [Field("dy", (N, SIDE), DType.BF16), Field("x", (N, SIDE), DType.BF16)])
    fields = (Field(f"weight{i}", (SIDE, SIDE)) for i in range(COUNT))
    outputs = Arena(device, "outputs", [*fields, Field("loss", (1,))])
    plan = Plan(device, "gradients", [inputs.flat, outputs.flat], DType.BF16)
    for i in range(COUNT):
        plan(MATMUL_BACKWARD_WEIGHT, outputs[f"weight{i}"], None, inputs["dy"], inputs["x"])
    if collective:
        plan(REDUCE, outputs["loss"], root=0)
    plan.prepare()
    return driver.earlier


def test_launches_that_share_no_memory_wait_for_the_one_with_their_workspace_only():
    assert waits(side_by_side=True) == [[]] * WORKSPACES + [[0], [1]]


def test_a_driver_without_branches_gets_a_chain():
    assert waits(side_by_side=False) == [[], *([index] for index in range(COUNT - 1))]


def test_a_plan_with_a_collective_is_a_chain():
    assert waits(side_by_side=True, collective=True)[:COUNT] == waits(side_by_side=False)
