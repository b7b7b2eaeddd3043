"""RCCL's calls between ranks that have a GPU each, launch by launch and in a captured graph, and a training by them.

Run by tests/compute/test_fakehip.py, in a process whose HIP and RCCL are the stand-in (rccl.cpp), with the chips of
CHIPS. Each rank is a process of its own, which this file is the program of.
"""

import subprocess
import sys

import numpy as np
import pytest
from support import curves
from support.group import LOOPBACK, free_port, rank_environment, train_in_processes
from support.rank import trainer_on

from hipgpt.compute.backends.cpu import CpuDevice
from hipgpt.compute.backends.gpu import GpuDevice
from hipgpt.compute.communicator import BROADCAST, BROADCAST_ROUNDED, REDUCE, REDUCE_ROUNDED
from hipgpt.compute.open_device import open_device
from hipgpt.compute.plan import Plan
from hipgpt.compute.process_group import ProcessGroup, meet
from hipgpt.compute.tensor import Arena, DType, Field

CHIPS = ("gfx1100", "gfx1100", "gfx90a")
RANKS, RUNS, ELEMENTS = len(CHIPS), 2, 2500  # elements: several turns of the stand-in
FIELDS = {"summed": DType.F32, "taken": DType.F32, "summed_rounded": DType.BF16, "taken_rounded": DType.BF16}

pytestmark = pytest.mark.gpu


def values(name: str, rank: int, run: int) -> np.ndarray:
    """Return what a rank gives: for sums in bf16 small integers, which are exact."""
    random = np.random.default_rng([*name.encode(), rank, run])
    drawn = random.integers(-9, 9, ELEMENTS) if name == "summed_rounded" else random.normal(size=ELEMENTS)
    return drawn.astype(np.float32).astype(FIELDS[name].numpy)


def without_graphs(group: ProcessGroup) -> GpuDevice:
    # loaded by ranks alone, because hip-python may not be installed where this file is only collected
    from hipgpt.compute.backends.hip import HipDriver
    from hipgpt.compute.backends.nccl import NcclCommunicator

    driver = HipDriver(group.rank)
    return GpuDevice(driver, False, NcclCommunicator(driver, group))


def main() -> None:
    rank, port, output, graphs = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4] == "True"
    group = meet(rank, RANKS, LOOPBACK, port, 60)
    device = open_device("hip", 1, group, rank) if graphs else without_graphs(group)
    arenas = {name: Arena(device, name, [Field("x", (ELEMENTS,), dtype)])["x"] for name, dtype in FIELDS.items()}
    plan = Plan(device, "plan", list(arenas.values()), DType.BF16)
    plan(REDUCE, arenas["summed"], root=1)
    plan(REDUCE_ROUNDED, arenas["summed_rounded"], root=0)
    plan(BROADCAST, arenas["taken"], root=2)
    plan(BROADCAST_ROUNDED, arenas["taken_rounded"], root=1)
    found = {}
    for run in range(RUNS):
        for name, x in arenas.items():
            device.write(x, values(name, rank, run))
        plan.run()
        found |= {f"{name}{run}": device.read(x).astype(np.float32) for name, x in arenas.items()}
    np.savez(output, **found)
    group.close()


@pytest.mark.parametrize("graphs", [False, True], ids=["hip-launches", "hip-graph"])
def test_ranks_sum_in_their_order_and_take_what_the_root_has(tmp_path, graphs):
    port, outputs = str(free_port()), [tmp_path / f"{rank}.npz" for rank in range(RANKS)]
    ranks = [
        subprocess.Popen([sys.executable, __file__, str(rank), port, str(output), str(graphs)], env=rank_environment())
        for rank, output in enumerate(outputs)
    ]
    try:
        assert [rank.wait(120) for rank in ranks] == [0] * RANKS
    finally:
        for rank in ranks:
            rank.kill()
    for rank, output in enumerate(outputs):
        got = np.load(output)
        for run in range(RUNS):
            given = {name: [values(name, each, run).astype(np.float32) for each in range(RANKS)] for name in FIELDS}
            wanted = {
                "summed": sum(given["summed"], np.float32(0)) * (rank == 1),
                "summed_rounded": sum(given["summed_rounded"], np.float32(0)) * (rank == 0),
                "taken": given["taken"][2],
                "taken_rounded": given["taken_rounded"][1],
            }
            for name, expected in wanted.items():
                np.testing.assert_array_equal(got[f"{name}{run}"], expected, err_msg=f"{name} of rank {rank}")


def test_two_ranks_train_as_one_device_on_hip_but_for_roundings(tmp_path):
    losses = train_in_processes(2, tmp_path, "adamw", "bfloat16", device="hip")["losses"]
    reference = curves.losses(trainer_on(open_device("hip"), "adamw", "bfloat16"))
    bound = curves.tolerance(lambda: trainer_on(CpuDevice(1), "adamw", "bfloat16"), reference, DType.BF16)
    assert (np.abs(losses - reference) <= bound).all()


if __name__ == "__main__":
    main()
