"""Dropout: how much it keeps, and what the mask depends on. test_ops.py tests values, test_formulas.py Philox."""

import math

import numpy as np
import pytest

from hipgpt.compute.catalogue import DROPOUT
from hipgpt.compute.plan import Plan
from hipgpt.compute.tensor import Arena, DType, Field

N = 1 << 18
COUNTERS = (41, 42, 7, 3)  # seed low, seed high, step, micro step


def dropped(
    device, probability: float, counters=COUNTERS, stream: int = 1, first_quad: int = 0, elements: int = N
) -> np.ndarray:
    """Return dropout of ones."""
    tensors = Arena(device, "values", [Field("x", (elements,)), Field("y", (elements,))])
    inputs = Arena(device, "counters", [Field("counters", (4,), DType.I32)])
    device.write(tensors["x"], np.ones(elements, np.float32))
    device.write(inputs["counters"], np.array(counters, np.int32))
    plan = Plan(device, "dropout", [tensors["x"], inputs.flat])
    settings = {"drop_probability": probability, "stream": stream, "first_quad": first_quad}
    plan(DROPOUT, tensors["y"], tensors["x"], inputs["counters"], **settings)
    plan.run()
    return device.read(tensors["y"])


def five_deviations(probability: float) -> float:
    """Return five standard deviations of the fraction that N draws keep. The probability of exceeding it is 6e-7."""
    return 5 * math.sqrt(probability * (1 - probability) / N)


@pytest.mark.parametrize("probability", [0.05, 0.1, 0.5, 0.9])
def test_fraction_kept_is_one_minus_the_probability(device, probability):
    kept = np.mean(dropped(device, probability) > 0)
    assert abs(kept - (1 - probability)) < five_deviations(probability)


@pytest.mark.parametrize("probability", [0.05, 0.1, 0.5, 0.9])
def test_mean_is_preserved(device, probability):
    mean = dropped(device, probability).mean(dtype=np.float64)
    assert abs(mean - 1) < five_deviations(probability) / (1 - probability) + 2.0**-23


def test_probability_zero_keeps_everything_as_it_is(device):
    assert (dropped(device, 0.0) == 1).all()


def test_same_counters_give_the_same_mask(device):
    np.testing.assert_array_equal(dropped(device, 0.5), dropped(device, 0.5))


def test_mask_of_an_element_does_not_depend_on_how_many_there_are(device):
    np.testing.assert_array_equal(dropped(device, 0.5, elements=101), dropped(device, 0.5)[:101])


CHANGED = {
    "seed low": {"counters": (40, 42, 7, 3)},
    "seed high": {"counters": (41, 43, 7, 3)},
    "step": {"counters": (41, 42, 8, 3)},
    "micro step": {"counters": (41, 42, 7, 4)},
    "stream": {"stream": 2},
}


def test_masks_of_parts_are_the_mask_of_all(device):
    parts = [dropped(device, 0.5, first_quad=quad, elements=4 * 25) for quad in (0, 25, 50)]
    np.testing.assert_array_equal(np.concatenate(parts), dropped(device, 0.5)[:300])


@pytest.mark.parametrize("change", CHANGED.values(), ids=CHANGED)
def test_mask_is_independent_under_another(device, change):
    first, second = dropped(device, 0.5) > 0, dropped(device, 0.5, **change) > 0
    assert abs(np.mean(first == second) - 0.5) < five_deviations(0.5)


@pytest.mark.parametrize("distance", [1, 2, 3, 4, 5, 8, 1024])
def test_elements_are_independent_of_their_neighbours(device, distance):
    kept = dropped(device, 0.5) > 0
    assert abs(np.mean(kept[distance:] == kept[:-distance]) - 0.5) < five_deviations(0.5) * math.sqrt(
        N / (N - distance)
    )
