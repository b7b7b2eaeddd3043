"""Attention of short sequences: bounds, memory, the same bytes again, and the plans that take its backward pass."""

import dataclasses
import functools

import numpy as np
import pytest
from support import reference
from support.calls import GARBAGE, Case, Memory, draw
from support.devices import DEVICES, null_gpu
from support.recorded_model import MODEL, RecordedModel

from hipgpt.compute.backends.attention_short import suits_backward
from hipgpt.compute.backends.hopper_variants import HALF_OF_SHARED
from hipgpt.compute.catalogue import ATTENTION_FORWARD
from hipgpt.compute.fused_ops import ATTENTION_SHORT_BACKWARD
from hipgpt.compute.tensor import DType
from hipgpt.config.settings import ModelConfig

# one query; ragged and whole tiles, each number of waves; channels that fill a tile and that do not; the longest
LENGTHS = (1, 5, 16, 31, 32, 33, 64, 77, 127, 130, 176, 192, 255, 256)
CASES = [
    Case(op, {"B": 2, "S": S, "H": 3, "D": D}, act=DType.BF16)
    for op in (ATTENTION_FORWARD, ATTENTION_SHORT_BACKWARD)
    for S in LENGTHS
    for D in (8, 16, 32, 40, 64)
    if op is ATTENTION_FORWARD or suits_backward({"S": S, "D": D}, HALF_OF_SHARED)
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
    serves = device.traits.workspaces[ATTENTION_SHORT_BACKWARD]
    if case.op is ATTENTION_SHORT_BACKWARD and not serves(case.sizes, case.act):
        pytest.skip(f"{device.name} has no attention of short sequences for {case}")
    memory = Memory(device, case, drawn(case), **({} if guard is None else {"guard": guard}))
    return memory, memory.run()


@on_gpus
def test_result_lies_within_its_derived_bound(device, case):
    _, got = run(device, case)
    for name, target in reference.evaluate(case.op, drawn(case), case.sizes, {}, case.act).items():
        error = np.abs(got[name].astype(np.float64) - target.value)
        assert (error <= target.error).all(), f"{name}: error {error.max():.3g}, bound {target.error.max():.3g}"


@on_gpus
def test_only_the_results_are_written(device, case):
    memory, _ = run(device, case)
    assert set(memory.surroundings()) == set(np.array([GARBAGE]).view(np.uint16))
    _, after = run(device, case, guard=0)
    for argument in case.op.arguments:
        if not argument.writes:
            assert after[argument.name].tobytes() == drawn(case)[argument.name].tobytes(), argument.name


@on_gpus
def test_the_same_bytes_come_again(device, case):
    (_, first), (_, second) = run(device, case), run(device, case)
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_bound_is_a_small_part_of_the_result(case):
    for target in reference.evaluate(case.op, drawn(case), case.sizes, {}, case.act).values():
        assert (target.error < 2**4 * case.act.unit_roundoff * max(1.0, np.abs(target.value).max())).all()


GPT2 = dataclasses.replace(MODEL, num_heads=2, context_length=32)
WITH_DROPOUT = 0.25
MODELS = {
    "gpt2": GPT2,
    "llama, grouped queries": dataclasses.replace(
        GPT2, architecture="llama", activation="swiglu", output_bias=False, num_heads=4, num_kv_heads=2, embed_dim=32
    ),
    "qwen3": dataclasses.replace(GPT2, architecture="qwen3", activation="swiglu", output_bias=False),
}


def attention_ops(model: ModelConfig, arch: str, act: DType = DType.BF16) -> list[str]:
    """Return the ops of attention's backward pass in the plan of a training step."""
    launches = RecordedModel(null_gpu(arch), model, 3, WITH_DROPOUT, act).training.launches
    names = "attention_delta", "attention_backward", "attention_short_backward"
    return [launch.op.name for launch in launches if launch.op.name in names]


@pytest.mark.parametrize("name", MODELS)
def test_a_plan_takes_one_launch_a_block_for_short_sequences(name):
    assert attention_ops(MODELS[name], "sm_90a") == ["attention_short_backward"] * MODELS[name].num_layers
    assert attention_ops(MODELS[name], "sm_80") == ["attention_short_backward"] * MODELS[name].num_layers


@pytest.mark.parametrize(
    ("model", "arch", "act"),
    [
        pytest.param(dataclasses.replace(GPT2, context_length=257), "sm_90a", DType.BF16, id="a longer sequence"),
        pytest.param(dataclasses.replace(GPT2, embed_dim=24), "sm_90a", DType.BF16, id="heads of 12 channels"),
        pytest.param(GPT2, "sm_90a", DType.F32, id="f32"),
        pytest.param(GPT2, "gfx1100", DType.BF16, id="an AMD GPU"),
    ],
)
def test_other_plans_take_two_launches_a_block(model, arch, act):
    assert attention_ops(model, arch, act) == ["attention_delta", "attention_backward"] * model.num_layers
