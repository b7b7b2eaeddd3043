"""Muon compared with float64: which matrices it takes, their directions and updates, and AdamW for everything else."""

import dataclasses

import numpy as np
import pytest
from support.launch_order import order_of
from support.optimizing import ADAMW, MUON, Optimizing, random_gradients
from support.rounding import F32_ROUNDOFF, accumulated
from support.tiny import MODEL

from hipgpt.compute.backends.cpu import traits
from hipgpt.compute.backends.gpu import traits as gpu_traits
from hipgpt.compute.backends.null import NullDevice
from hipgpt.compute.catalogue import MUON_UPDATE
from hipgpt.compute.tensor import DType, Field
from hipgpt.gpt.parameters import parameters
from hipgpt.training.muon import batches, parts_of
from hipgpt.training.ownership import Piece
from hipgpt.training.schedule import learning_rate

FIELDS = [
    Field("table", (5, 31), decay=True),
    Field("tall", (40, 12), decay=True, matrices=(40,)),
    Field("three", (3 * 12, 12), decay=True, matrices=(12, 12, 12)),
    Field("two_sizes", (12 + 2 * 7, 40), decay=True, matrices=(12, 7, 7)),
    Field("output", (9, 12), decay=True),
    Field("bias", (33,)),
]
MATRICES = [field for field in FIELDS if field.matrices]
OTHERS = [field for field in FIELDS if not field.matrices]
TRAITS = traits((DType.F32, DType.BF16))


def gradients_of(step):
    return random_gradients(FIELDS, step)


def apart(field, array):
    """Return the matrices of a field."""
    return np.split(array, np.cumsum(field.matrices)[:-1])


def orthogonalized(x: np.ndarray, rounded=lambda values: values) -> np.ndarray:
    """Return five Newton-Schulz steps of a matrix in float64. rounded: a function applied to every product."""
    x = x.T if x.shape[0] > x.shape[1] else x
    x = rounded(x / np.linalg.norm(x))
    for _ in range(5):
        gram = rounded(x @ x.T)
        x = rounded(rounded(3.4445 * np.eye(len(x)) - 4.7750 * gram + 2.0315 * gram @ gram) @ x)
    return x


def updated(weight: np.ndarray, gradient: np.ndarray, rounded=lambda values: values) -> np.ndarray:
    """Return a matrix after the first update. Momentum and clipping only scale a first gradient."""
    rows, columns = weight.shape
    direction = orthogonalized(gradient.astype(np.float64), rounded) * max(1.0, rows / columns) ** 0.5
    direction = direction.T if rows > columns else direction
    adamw_rate = learning_rate(MUON, 1)
    rate = adamw_rate * MUON.muon_learning_rate_peak / MUON.learning_rate_peak
    return weight - rate * direction - adamw_rate * MUON.weight_decay * weight.astype(np.float64)


def tolerance(weight: np.ndarray, gradient: np.ndarray) -> float:
    """Return how far roundings may move an update, in the 2-norm.

    test_ops.py proves that an op is off by at most gamma(terms) of the magnitudes that it sums. So the formulas run
    again with each product off by that part of its row's root mean square, with random signs; the furthest of several
    runs is the tolerance, and three roundings of each weight.
    """
    exact, size = updated(weight, gradient), accumulated(max(weight.shape) + 3)

    def distance(seed: int) -> float:
        random = np.random.default_rng(seed)

        def rounded(values):
            rms = np.sqrt(np.mean(values**2, axis=-1, keepdims=True))
            return values + size * rms * random.choice([-1.0, 1.0], values.shape)

        return float(np.linalg.norm(updated(weight, gradient, rounded) - exact))

    return max(distance(seed) for seed in range(5)) + 3 * F32_ROUNDOFF * float(np.linalg.norm(weight))


def test_an_update_of_every_matrix_equals_float64(device):
    training, gradients = Optimizing(device, FIELDS, MUON), gradients_of(1)
    before = training.read(training.weights)
    training.step(1, gradients)
    after = training.read(training.weights)
    for field in MATRICES:
        triples = (apart(field, values[field.name]) for values in (before, gradients, after))
        for weight, gradient, got in zip(*triples, strict=True):
            expected, allowed = updated(weight, gradient), tolerance(weight, gradient)
            assert np.linalg.norm(got - expected) <= allowed, field.name
            assert allowed < 1e-2 * np.linalg.norm(expected - weight)


def test_the_direction_has_singular_values_near_one(device):
    training = Optimizing(device, FIELDS, dataclasses.replace(MUON, weight_decay=0.0))
    before = training.read(training.weights)
    training.step(1, gradients_of(1))
    after, rate = training.read(training.weights), learning_rate(MUON, 1) * 2e-2 / MUON.learning_rate_peak
    for field in MATRICES:
        for weight, updated in zip(apart(field, before[field.name]), apart(field, after[field.name]), strict=True):
            scale = max(1.0, weight.shape[0] / weight.shape[1]) ** 0.5
            values = np.linalg.svd((weight.astype(np.float64) - updated) / rate / scale, compute_uv=False)
            assert values.min() > 0.3 and values.max() < 1.3, field.name


def test_the_momentum_is_an_average_of_clipped_gradients(device):
    training, expected = Optimizing(device, FIELDS, MUON), {field.name: np.zeros(field.shape) for field in MATRICES}
    for step in range(1, 4):
        training.step(step, gradients_of(step))
        clip = min(1.0, MUON.clip_norm / float(device.read(training.optimizer.norm)[0]))
        for name in expected:
            expected[name] = 0.95 * expected[name] + 0.05 * clip * gradients_of(step)[name]
    got = training.read(training.optimizer.first_moment)
    for name, values in expected.items():
        # clip, two products and a sum a step, and the decimal 0.95
        np.testing.assert_allclose(got[name], values, rtol=0, atol=3 * 6 * 2.0**-24 * np.abs(values).max())


def test_everything_else_moves_as_with_adamw(device):
    muon, adamw = Optimizing(device, FIELDS, MUON), Optimizing(device, FIELDS, ADAMW)
    for step in range(1, 4):
        for training in (muon, adamw):
            training.step(step, gradients_of(step))
    got, expected = (training.read(training.weights) for training in (muon, adamw))
    for field in OTHERS:
        np.testing.assert_array_equal(got[field.name], expected[field.name])
    got, expected = (training.read(training.optimizer.second_moment) for training in (muon, adamw))
    assert got.keys() == {field.name for field in OTHERS}
    for name, values in got.items():
        np.testing.assert_array_equal(values, expected[name])


def test_zero_gradients_leave_finite_weights_and_only_decay(device):
    training = Optimizing(device, FIELDS, MUON)
    before = training.read(training.weights)
    training.step(1, {field.name: np.zeros(field.shape, np.float32) for field in FIELDS})
    after = training.read(training.weights)
    for field in MATRICES:
        factor = 1 - learning_rate(MUON, 1) * MUON.weight_decay
        np.testing.assert_allclose(after[field.name], before[field.name] * factor, rtol=2.0**-23)


def test_padding_stays_zero_and_gradients_become_zero(device):
    training = Optimizing(device, FIELDS, MUON)
    for step in range(1, 4):
        training.step(step, gradients_of(step))
    inside = np.zeros(training.weights.flat.elements, bool)
    for field in FIELDS:
        inside[training.weights.offsets[field.name] // 4 :][: field.elements] = True
    for arena in (training.weights, training.optimizer.first_moment):
        assert (device.read(arena.flat)[~inside] == 0).all()
    assert (device.read(training.gradients.flat) == 0).all()


def whole(field: Field) -> Piece:
    return Piece(field, 0, field.elements)


def test_the_matrices_of_gpt2_are_those_of_the_blocks():
    fields = [field for field in parameters(MODEL) if field.matrices]
    names = [f"block{i}.{name}.weight" for i in range(2) for name in ("qkv", "projection", "mlp_in", "mlp_out")]
    assert [field.name for field in fields] == names
    assert all(sum(field.matrices) == field.shape[0] for field in fields)
    assert [part.count for part in parts_of(whole(fields[0]))] == [3]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_batches_hold_every_part_once_and_stay_small(count):
    side = 1024  # four of these fill a batch
    fields = [Field(f"field{i}", (side, side), matrices=(side,)) for i in range(count)]
    most = 4 * side**2
    fields += [Field("large", (4 * most // side, side), matrices=(4 * most // side,))]
    found = list(batches(map(whole, fields), most))
    assert sorted(part.field for batch in found for part in batch) == sorted(field.name for field in fields)
    assert all(len(batch) == 1 or sum(part.elements for part in batch) <= most for batch in found)
    assert all(len({part.sides for part in batch}) == 1 for batch in found)


@pytest.mark.parametrize(("side", "wait"), [(64, False), (4096, True)])
def test_small_matrices_of_different_sides_do_not_wait_for_each_other_on_a_gpu(side, wait):
    """Large ones share a workspace."""
    fields = [Field("square", (side, side), decay=True, matrices=(side,))]
    fields += [Field("wide", (side, 2 * side), decay=True, matrices=(side,)), Field("bias", (side,))]
    launches = Optimizing(NullDevice(gpu_traits((DType.F32,))), fields, MUON).plan.launches
    first, last = (i for i, launch in enumerate(launches) if launch.op is MUON_UPDATE)
    assert (first in order_of(launches)[last]) is wait
