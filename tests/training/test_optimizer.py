"""AdamW over several steps compared with float64, clipping by the global norm, and the learning-rate schedule."""

import dataclasses
import math

import numpy as np
import pytest
from support import reference
from support.optimizing import ADAMW, Optimizing, random_gradients
from support.rounding import Rounded, stack

from hipgpt.compute.backends.cpu import traits
from hipgpt.compute.backends.null import NullDevice
from hipgpt.compute.catalogue import CATALOGUE
from hipgpt.compute.plan import Plan
from hipgpt.compute.tensor import Arena, DType, Field
from hipgpt.training.schedule import learning_rate, schedule
from hipgpt.training.step_io import StepHistory, counters

TRAITS = traits((DType.F32, DType.BF16))

FIELDS = [
    Field("matrix", (17, 33), decay=True),
    Field("table", (5, 31), decay=True),
    Field("bias", (33,)),
    Field("gain", (7,)),
]
STEPS = 5


def float64_steps(weights, settings, scale):
    """Return weights, first and second moments by field after STEPS updates, as `Rounded`: bounds add up."""
    state = {f.name: [Rounded(weights[f.name]), Rounded(np.zeros(f.shape)), Rounded(np.zeros(f.shape))] for f in FIELDS}
    scalars = {
        "beta1": settings.beta1,
        "beta2": settings.beta2,
        "epsilon": settings.epsilon,
        "clip_norm": settings.clip_norm,
    }
    scalars = {name: Rounded(np.float32(value)) for name, value in scalars.items()}
    for step in range(1, STEPS + 1):
        gradients = random_gradients(FIELDS, step, scale)
        everything = Rounded(np.concatenate([values.ravel() for values in gradients.values()]))
        partials = reference.sum_of_squares(everything, 1, everything.value.size)["partials"]
        norm = reference.gradient_norm(partials)["norm"]
        rates = Rounded(schedule(settings, step)[None])
        for field in FIELDS:
            decay, size = Rounded(np.float32(settings.weight_decay if field.decay else 0.0)), math.prod(field.shape)
            flat = [Rounded(part.value.ravel(), part.error.ravel()) for part in state[field.name]]
            tensors = [*flat, Rounded(gradients[field.name].ravel()), None, norm, rates, np.zeros(4, np.int32), 1]
            updated = reference.adamw(*tensors, **scalars, weight_decay=decay, decayed=size)
            results = [updated[name] for name in ("weights", "first_moment", "second_moment")]
            state[field.name] = [Rounded(p.value.reshape(field.shape), p.error.reshape(field.shape)) for p in results]
    return {name: stack(parts, axis=0) for name, parts in state.items()}


@pytest.mark.parametrize("scale, clipped", [(1.0, True), (1e-3, False)])
def test_several_updates_equal_float64(device, scale, clipped):
    training = Optimizing(device, FIELDS)
    reference = float64_steps(training.read(training.weights), ADAMW, scale)
    for step in range(1, STEPS + 1):
        training.step(step, random_gradients(FIELDS, step, scale))
        assert (device.read(training.optimizer.norm)[0] > ADAMW.clip_norm) == clipped
    arenas = training.weights, training.optimizer.first_moment, training.optimizer.second_moment
    got = [training.read(arena) for arena in arenas]
    for name, expected in reference.items():
        error = np.abs(np.stack([values[name] for values in got]) - expected.value)
        assert (error <= expected.error).all(), name
        # the bounds grow with the steps, but stay small compared with the change: about a learning rate per step
        assert expected.error[0].max() < 1e-2 * STEPS * ADAMW.learning_rate_peak


def test_norm_covers_every_gradient(device):
    training, gradients = Optimizing(device, FIELDS), random_gradients(FIELDS, 1, 1.0)
    training.step(1, gradients)
    exact = math.sqrt(sum(float(np.sum(values.astype(np.float64) ** 2)) for values in gradients.values()))
    # partial sums are rounded once, then the root of their sum
    assert abs(float(device.read(training.optimizer.norm)[0]) - exact) <= 2 * 2.0**-24 * exact


def test_only_decayed_fields_decay(device):
    training = Optimizing(device, FIELDS)
    before = training.read(training.weights)
    training.step(1, {field.name: np.zeros(field.shape, np.float32) for field in FIELDS})
    after = training.read(training.weights)
    for field in FIELDS:
        if field.decay:
            factor = 1 - learning_rate(ADAMW, 1) * ADAMW.weight_decay
            np.testing.assert_allclose(after[field.name], before[field.name] * factor, rtol=2.0**-23)
            assert (after[field.name] != before[field.name]).any()
        else:
            np.testing.assert_array_equal(after[field.name], before[field.name])


def test_padding_stays_zero(device):
    training = Optimizing(device, FIELDS)
    for step in range(1, STEPS + 1):
        training.step(step, random_gradients(FIELDS, step, 1.0))
    inside = np.zeros(training.weights.flat.elements, bool)
    for field in FIELDS:
        inside[training.weights.offsets[field.name] // 4 :][: field.elements] = True
    assert not inside.all()
    for arena in (training.weights, training.optimizer.first_moment, training.optimizer.second_moment):
        assert (device.read(arena.flat)[~inside] == 0).all()


def test_an_update_leaves_the_gradients_zero(device):
    training = Optimizing(device, FIELDS)
    training.step(1, random_gradients(FIELDS, 1, 1.0))
    assert (device.read(training.gradients.flat) == 0).all()


def test_an_update_is_three_launches():
    training = Optimizing(NullDevice(TRAITS), FIELDS)
    names = [launch.op.name for launch in training.plan.launches]
    assert names == ["sum_of_squares", "gradient_norm", "adamw"]
    undecayed = training.weights["bias"].address - training.weights.flat.address
    assert training.plan.launches[2].scalars["decayed"] == undecayed // 4


def rates(**changes):
    settings = dataclasses.replace(ADAMW, **changes)
    return [learning_rate(settings, step) for step in range(1, settings.steps + 1)]


def test_learning_rate_rises_linearly_to_the_peak():
    assert rates(steps=100)[:20] == pytest.approx([3e-3 * step / 20 for step in range(1, 21)])


def test_learning_rate_falls_from_the_peak_to_the_floor():
    after = rates(steps=100)[19:]
    assert after == sorted(after, reverse=True)
    assert after[0] == pytest.approx(3e-3)
    assert after[-1] == pytest.approx(3e-4)


def test_learning_rate_is_half_way_down_in_the_middle():
    assert rates(steps=100)[59] == pytest.approx((3e-3 + 3e-4) / 2)


def test_without_warmup_the_first_step_is_just_below_the_peak():
    first, *_, last = rates(steps=100, warmup_fraction=0)
    assert 0.999 * 3e-3 < first < 3e-3
    assert last == pytest.approx(3e-4)


def test_warmup_of_the_whole_training_ends_at_the_peak():
    assert rates(warmup_fraction=1)[-1] == pytest.approx(3e-3)


def test_a_training_of_one_step_has_a_learning_rate():
    assert 0 < rates(steps=1)[0] <= 3e-3


@pytest.mark.parametrize("step", [1, 2, 10])
def test_schedule_holds_the_learning_rate_and_both_bias_corrections(step):
    expected = [learning_rate(ADAMW, step), 1 / (1 - 0.9**step), 1 / (1 - 0.95**step)]
    np.testing.assert_array_equal(schedule(ADAMW, step), np.array(expected, np.float32))


def test_counters_hold_the_seed_in_two_words_then_step_and_micro_step():
    words = counters(seed=0xFEDCBA9876543210, step=12, micro_step=3)
    assert words.dtype == np.int32
    assert words.view(np.uint32).tolist() == [0x76543210, 0xFEDCBA98, 12, 3]


def test_history_keeps_the_last_steps_in_order(device):
    history = StepHistory(device, steps=4)
    figures = Arena(device, "figures", [Field("loss", (1,)), Field("norm", (1,))])
    inputs = Arena(device, "inputs", [Field("counters", (4,), DType.I32)])
    plan = Plan(device, "record", [*history.given, figures.flat, inputs.flat])
    history.record(plan, figures["loss"], figures["norm"], inputs["counters"])
    for step in range(1, 8):
        device.write(inputs["counters"], counters(1, step, 0))
        device.write(figures["loss"], np.array([step], np.float32))
        device.write(figures["norm"], np.array([step / 2], np.float32))
        plan.run()
    np.testing.assert_array_equal(history.read(4, 7), [[step, step / 2] for step in range(4, 8)])
    assert plan.launches[0].op is CATALOGUE["record_step"]


WSD = {"schedule": "wsd", "steps": 100, "decay_fraction": 0.3}


def test_wsd_stays_at_the_peak_and_then_falls_in_a_line():
    found = rates(**WSD)
    assert found[19:70] == pytest.approx([3e-3] * 51)
    assert found[70:] == pytest.approx([3e-4 + (3e-3 - 3e-4) * (100 - step) / 30 for step in range(71, 101)])


@pytest.mark.parametrize("kind", ["wsd", "cosine"])
def test_a_schedule_may_end_at_zero(kind):
    found = rates(**WSD | {"schedule": kind, "learning_rate_floor_fraction": 0.0})
    assert found[-1] == pytest.approx(0, abs=1e-18) and min(found[:-1]) > 0


def test_wsd_without_decay_ends_at_the_peak():
    assert rates(**WSD | {"decay_fraction": 0.0})[-1] == pytest.approx(3e-3)
