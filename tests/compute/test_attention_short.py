"""The backward pass of attention in one launch, for short sequences: its bounds, its memory, its bytes again."""

import functools

import numpy as np
import pytest
from support import reference
from support.calls import GARBAGE, Case, Memory, draw
from support.devices import DEVICES
from support.rounding import Rounded

from hipgpt.compute.fused_ops import ATTENTION_SHORT_BACKWARD
from hipgpt.compute.tensor import DType

# one query; ragged and whole tiles, each number of waves; channels that fill a tile and that do not; the longest
LENGTHS = (1, 5, 16, 31, 32, 33, 64, 77, 130, 176, 255, 256)
CASES = [
    Case(ATTENTION_SHORT_BACKWARD, {"B": 2, "S": S, "H": 3, "D": D}, act=DType.BF16)
    for S in LENGTHS
    for D in (8, 16, 32, 40, 64)
    if S * D <= 256 * 32
]
on_gpus = pytest.mark.parametrize(
    ("device", "case"),
    [
        pytest.param(name, case, marks=marks, id=f"{name}-{case}")
        for name, (_, marks) in DEVICES.items()
        if name != "cpu"
        for case in CASES
    ],
    indirect=["device"],
    scope="module",
)
drawn = functools.lru_cache(maxsize=1)(draw)


def run(device, case: Case, guard: int | None = None) -> tuple[Memory, dict[str, np.ndarray]]:
    """Return a call's memory and its values afterwards. Skips where the device has no such op."""
    serves = device.traits.workspaces.get(ATTENTION_SHORT_BACKWARD)
    if serves is None or not serves(case.sizes, case.act):
        pytest.skip(f"{device.name} has no attention of short sequences for {case}")
    memory = Memory(device, case, drawn(case), **({} if guard is None else {"guard": guard}))
    return memory, memory.run()


@on_gpus
def test_result_lies_within_its_derived_bound(device, case):
    _, got = run(device, case)
    target = reference.evaluate(case.op, drawn(case), case.sizes, {}, case.act)["dqkv"]
    assert isinstance(target, Rounded)
    error = np.abs(got["dqkv"].astype(np.float64) - target.value)
    assert (error <= target.error).all(), f"error {error.max():.3g}, bound {target.error.max():.3g}"


@on_gpus
def test_only_the_gradients_are_written(device, case):
    memory, _ = run(device, case)
    assert set(memory.surroundings()) == set(np.array([GARBAGE]).view(np.uint16))
    _, after = run(device, case, guard=0)
    for argument in case.op.arguments:
        if not argument.writes:
            assert after[argument.name].tobytes() == drawn(case)[argument.name].tobytes(), argument.name


@on_gpus
def test_the_same_bytes_come_again(device, case):
    (_, first), (_, second) = run(device, case), run(device, case)
    assert first["dqkv"].tobytes() == second["dqkv"].tobytes()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_bound_is_a_small_part_of_the_result(case):
    target = reference.evaluate(case.op, drawn(case), case.sizes, {}, case.act)["dqkv"]
    assert (target.error < 2**4 * case.act.unit_roundoff * max(1.0, np.abs(target.value).max())).all()
