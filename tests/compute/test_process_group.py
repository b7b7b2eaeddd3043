"""Messages between ranks, and collectives on host memory."""

import threading
import time

import numpy as np
import pytest
from support.group import free_port, in_threads

from hipgpt.base.errors import UserError
from hipgpt.compute import process_group
from hipgpt.compute.backends.cpu import CpuDevice
from hipgpt.compute.catalogue import SUM_OF_SQUARES
from hipgpt.compute.communicator import BROADCAST, BROADCAST_ROUNDED, REDUCE
from hipgpt.compute.plan import Plan
from hipgpt.compute.process_group import END, ProcessGroup, meet
from hipgpt.compute.tensor import Arena, DType, Field

SIZES = (1, 2, 5)


def collective(group, op, root, dtype=DType.F32):
    """Return what x = 10**rank + (0, 1, 2) becomes."""
    device = CpuDevice(1, group)
    arena = Arena(device, "arena", [Field("x", (3,), dtype)])
    plan = Plan(device, "plan", [arena["x"]], dtype)
    plan(op, arena["x"], root=root)
    device.write(arena["x"], (np.arange(3) + 10**group.rank).astype(dtype.numpy))
    plan.run()
    return device.read(arena["x"]).astype(int).tolist()


@pytest.mark.parametrize("size", SIZES)
def test_reduce_gives_the_sum_to_the_root_and_zero_to_the_others(size):
    for root in range(size):
        found = in_threads(size, lambda group, root=root: collective(group, REDUCE, root))
        sums = [int("1" * size) + size * i for i in range(3)]
        assert found == [sums if rank == root else [0, 0, 0] for rank in range(size)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("op, dtype", [(BROADCAST, DType.F32), (BROADCAST_ROUNDED, DType.BF16)])
def test_broadcast_gives_all_ranks_the_values_of_the_root(size, op, dtype):
    for root in range(size):
        found = in_threads(size, lambda group, root=root: collective(group, op, root, dtype))
        expected = (np.arange(3) + 10**root).astype(dtype.numpy).astype(int).tolist()
        assert found == [expected] * size


def test_sums_are_made_in_the_order_of_the_ranks():
    values = np.array([1.0, 2.0**-24, 2.0**-24], np.float32)  # from the left 1; the small ones first, more

    def reduced(group):
        device = CpuDevice(1, group)
        x = Arena(device, "arena", [Field("x", (1,))])["x"]
        plan = Plan(device, "plan", [x])
        plan(REDUCE, x, root=2)
        device.write(x, values[group.rank : group.rank + 1])
        plan.run()
        return device.read(x)[0]

    assert in_threads(3, reduced)[2] == 1.0


def test_a_collective_runs_in_its_place_between_other_launches():
    def summed(group):
        device = CpuDevice(1, group)
        arena = Arena(device, "arena", [Field("x", (128,)), Field("before", (4,)), Field("after", (4,))])
        plan = Plan(device, "plan", [arena["x"]])
        plan(SUM_OF_SQUARES, arena["before"], arena["x"])
        plan(REDUCE, arena["x"], root=0)
        plan(SUM_OF_SQUARES, arena["after"], arena["x"])
        device.write(arena["x"], np.ones(128, np.float32))
        plan.run()
        return device.read(arena["before"]).sum(), device.read(arena["after"]).sum()

    assert in_threads(2, summed) == [(128, 512), (128, 0)]


def test_rank_0_tells_the_others_what_it_calls():
    def told(group):
        if group.leads:
            group.tell("step", 3)
            group.close()
            return None
        return [group.told(), group.told()]

    assert in_threads(3, told) == [None, [["step", 3], [END]], [["step", 3], [END]]]


def test_rank_0_hands_out_and_collects_arrays():
    def both(group):
        given, own = np.arange(4) if group.leads else np.empty(4, int), np.full(2, group.rank)
        group.share(given)
        brought = [np.array(own) for _ in range(group.size)]
        for rank in range(group.size):
            group.bring(rank, brought[rank])
        return given.tolist(), [values.tolist() for values in brought] if group.leads else None

    found = in_threads(3, both)
    assert [given for given, _ in found] == [[0, 1, 2, 3]] * 3
    assert found[0][1] == [[0, 0], [1, 1], [2, 2]]


def test_a_rank_that_has_ended_is_named():
    def act(group):
        if group.rank == 2:
            group._connections[0].close()
            return
        values = np.zeros(1)
        group.bring(2, values)
        return

    found = in_threads(3, act)
    assert isinstance(found[0], UserError) and "rank 0: rank 2 of 3 has ended; start" in str(found[0])


def test_a_rank_that_does_not_answer_is_named_after_its_time():
    def act(group):
        if group.leads:
            group.bring(1, np.zeros(1))
        else:
            time.sleep(1.5)

    found = in_threads(2, act, seconds_to_answer=0.5)
    assert isinstance(found[0], UserError) and "rank 1 of 2 did not answer for 0 s" in str(found[0])


def test_a_rank_that_does_not_come_is_named(monkeypatch):
    monkeypatch.setattr(process_group, "SECONDS_TO_MEET", 0.3)
    with pytest.raises(UserError, match=r"ranks \[1, 2\] of 3 did not come"):
        meet(0, 3, "127.0.0.1", free_port())
    with pytest.raises(UserError, match=r"rank 1: rank 0 is not at 127.0.0.1:[0-9]+: "):
        meet(1, 3, "127.0.0.1", free_port())


def test_a_number_that_is_taken_or_no_rank_is_refused(monkeypatch):
    monkeypatch.setattr(process_group, "SECONDS_TO_MEET", 2)
    found = {}
    port = free_port()
    thread = threading.Thread(target=lambda: found.update(group=meet(7, 3, "127.0.0.1", port)))
    thread.start()
    with pytest.raises(UserError, match="got rank 7, expected each of 1 to 2 once"):
        meet(0, 3, "127.0.0.1", port)
    thread.join()


def test_a_group_of_one_needs_nobody():
    group = meet(0, 1, "nowhere", 0)
    assert (group.rank, group.size, group.leads) == (0, 1, True)
    group.tell("step", 1)
    group.share(np.zeros(1))
    group.close()
    assert ProcessGroup().size == 1
