"""The batches that a device builds equal those of Batches in every step; so do the schedule and the counters."""

from types import SimpleNamespace

import numpy as np
import pytest
from support.training_settings import training_config

from hipgpt.compute.plan import Plan
from hipgpt.compute.tensor import Arena, DType, Field
from hipgpt.data.batches import Batches
from hipgpt.data.tokens import Tokens
from hipgpt.training import step_io
from hipgpt.training.schedule import schedule
from hipgpt.training.step_io import StepHistory, StepInputs, counters, steps_ahead

B, S, A, SEED = 3, 5, 2, 11
SETTINGS = {"seed": SEED, "steps": 40, "accumulation_steps": A, "learning_rate_peak": 1e-2, "warmup_fraction": 0.1,
            "learning_rate_floor_fraction": 0.1, "beta1": 0.9, "beta2": 0.95}  # fmt: skip
TRAINING = training_config(**SETTINGS)


@pytest.fixture(params=["resident", "gathered"])
def inputs(request, device, monkeypatch):
    """Return inputs that store the whole split (on a GPU), or only the windows of the coming steps."""
    if request.param == "gathered":
        monkeypatch.setattr(step_io, "RESIDENT_BYTES", 0)
    tokens = Tokens([np.arange(200, dtype=np.uint16), np.arange(200, 317, dtype=np.uint16)])
    return StepInputs(device, Batches(tokens, B, S, SEED), TRAINING, steps_ahead=4)


def end_of_step(device, inputs) -> Plan:
    figures = Arena(device, "figures", [Field("loss", (1,)), Field("norm", (1,))])
    history = StepHistory(device, steps=1)
    plan = Plan(device, "end", [*inputs.given, *history.given, figures.flat])
    history.record(plan, figures["loss"], figures["norm"], inputs.counters)
    return plan


@pytest.mark.parametrize("steps", [range(1, 12), [1, 2, 7, 8, 9, 3], [6]], ids=["in order", "with jumps", "resumed"])
def test_every_micro_batch_is_that_of_its_step(device, inputs, steps):
    fields = [Field("tokens", (B, S), DType.I32), Field("targets", (B, S), DType.I32)]
    batch = Arena(device, "batch", fields)
    plan = Plan(device, "micro_batch", inputs.given)
    inputs.record(plan, batch["tokens"], batch["targets"])
    advance = Plan(device, "next_micro_batch", inputs.given)
    inputs.record_advance(advance)
    inputs.record(advance, batch["tokens"], batch["targets"])
    end = end_of_step(device, inputs)
    batches = Batches(Tokens([np.arange(317, dtype=np.uint16)]), B, S, SEED)
    for step in steps:
        inputs.prepare(step)
        for micro_step in range(A):
            (advance if micro_step else plan).run()
            windows = batches.batch((step - 1) * A + micro_step)
            np.testing.assert_array_equal(device.read(batch["tokens"]), windows[:, :-1])
            np.testing.assert_array_equal(device.read(batch["targets"]), windows[:, 1:])
            np.testing.assert_array_equal(device.read(inputs.counters), counters(SEED, step, micro_step))
        np.testing.assert_array_equal(device.read(inputs.schedule)[step % 4], schedule(TRAINING, step))
        end.run()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"log_every_steps": 10}, 10),
        ({"log_every_steps": 3_000_000, "steps": 20}, 20),
        ({"log_every_steps": 3_000_000, "steps": 3_000_000, "batch_sequences": 1 << 10}, 496),
        ({"log_every_steps": 10, "batch_sequences": 1 << 20, "accumulation_steps": 1 << 10}, 1),
    ],
)
def test_tables_hold_the_steps_between_two_rows_of_the_log_if_they_fit(changes, expected):
    settings = {"steps": 1000, "batch_sequences": 4, "accumulation_steps": 1, "log_every_steps": 1} | changes
    assert steps_ahead(SimpleNamespace(**settings), context_length=32) == expected
