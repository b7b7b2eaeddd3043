"""Collectives run on a second stream beside later launches, and are joined before a launch that uses their memory."""

import numpy as np
import pytest

from hipgpt.compute.backends.gpu import GpuDevice
from hipgpt.compute.backends.hip import HipDriver
from hipgpt.compute.catalogue import SUM_OF_SQUARES
from hipgpt.compute.communicator import REDUCE
from hipgpt.compute.plan import Plan
from hipgpt.compute.process_group import ProcessGroup
from hipgpt.compute.tensor import Arena, Field

pytestmark = pytest.mark.gpu


class Clearing:
    """Does with gradients of other ranks what NCCL's communicator does: they become zero, on a stream of its own."""

    group = ProcessGroup()

    def __init__(self, driver):
        self.driver, self.stream, self.calls = driver, driver.new_stream(), []

    def bind(self, launches):
        def run():
            self.driver.order(self.driver.stream, self.stream)
            for launch in launches:
                self.calls.append("start")
                self.driver.clear(launch.tensor("x").address, launch.tensor("x").size_bytes, self.stream)

        return run

    def join(self):
        self.calls.append("join")
        self.driver.order(self.stream, self.driver.stream)


def sums_of(x, y, graphs, recorded):
    """Return the sums of squares of x before and after it is cleared, and that of y, and the communicator's calls."""
    driver = HipDriver(0)
    communicator = Clearing(driver)
    device = GpuDevice(driver, graphs, communicator)
    launch = driver.launch
    driver.launch = lambda *call: (communicator.calls.append("launch"), launch(*call))
    arena = Arena(device, "arena", [Field(name, (128,)) for name in ("x", "y")])
    sums = Arena(device, "sums", [Field(name, (4,)) for name in ("before", "after", "y")])
    plan = Plan(device, "plan", [arena["x"], arena["y"]])
    recorded(plan, arena, sums)
    device.write(arena["x"], np.full(128, x, np.float32))
    device.write(arena["y"], np.full(128, y, np.float32))
    plan.run()
    return {field.name: float(device.read(sums[field.name]).sum()) for field in sums.fields}, communicator.calls


@pytest.mark.parametrize("graphs", [False, True])
def test_hip_a_collective_is_joined_before_its_memory_is_used_and_no_earlier(graphs):
    def recorded(plan, arena, sums):
        plan(SUM_OF_SQUARES, sums["before"], arena["x"])
        plan(SUM_OF_SQUARES, sums["y"], arena["y"])
        plan.early(REDUCE, arena["x"], root=0)
        plan(SUM_OF_SQUARES, sums["after"], arena["x"])

    found, calls = sums_of(2, 3, graphs, recorded)
    assert found == {"before": 128 * 4, "after": 0, "y": 128 * 9}
    assert calls == ["launch", "start", "launch", "join", "launch"]


@pytest.mark.parametrize("graphs", [False, True])
def test_hip_a_collective_at_the_end_is_joined_there(graphs):
    def recorded(plan, arena, sums):
        for name, field in (("before", "x"), ("after", "y"), ("y", "y")):
            plan(SUM_OF_SQUARES, sums[name], arena[field])
        plan(REDUCE, arena["x"], root=0)

    found, calls = sums_of(2, 3, graphs, recorded)
    assert found == {"before": 128 * 4, "after": 128 * 9, "y": 128 * 9}
    assert calls == ["launch"] * 3 + ["start", "join"]
