"""Drawing a token from the top k of many, few or equal scores, compared with the reference's distribution."""

from collections.abc import Callable

import numpy as np
import pytest
from support import reference
from support.calls import Case, Memory, draw
from support.devices import every_device_in_every_dtype

from hipgpt.base.kernel_constants import kernel_constants
from hipgpt.base.paths import KERNELS
from hipgpt.compute.catalogue import DRAW_TOKEN

MOST_TOP_K = kernel_constants(KERNELS / "gpu/simt/top_tokens.h")["MOST_TOP_K"]
THREADS = kernel_constants(KERNELS / "gpu/launch_shapes.h")["SAMPLING_THREADS"]
B, T = 12, 40
Logits = Callable[[np.random.Generator, int], np.ndarray]


def different(random: np.random.Generator, V: int) -> np.ndarray:
    """Return logits of which few are equal in bf16."""
    return random.normal(size=(B, V)) * 3


def quarters(random: np.random.Generator, V: int) -> np.ndarray:
    """Return logits so coarse that many are equal, also at the k-th place."""
    return np.round(random.normal(size=(B, V)) * 4) / 4


def equal(random: np.random.Generator, V: int) -> np.ndarray:
    return np.full((B, V), -0.75)


def growing(random: np.random.Generator, V: int) -> np.ndarray:
    """Return logits whose greatest ones are neighbours, so that few threads have all of them."""
    return np.tile(np.arange(V) - V, (B, 1)) / 256


def masked(random: np.random.Generator, V: int) -> np.ndarray:
    """Return logits of which all but about one of 50 are minus infinity."""
    return np.where(random.random((B, V)) < 0.02, random.normal(size=(B, V)), -np.inf)


# name: the logits, the size of the vocabulary, and ways of sampling: temperature, top_k, top_p, repetition penalty
CASES: dict[str, tuple[Logits, int, list[tuple[float, float, float, float]]]] = {
    "one token": (different, 1, [(1, 1, 1, 1), (1, 0, 0.5, 2)]),
    "fewer tokens than k": (different, 47, [(2, 50, 1, 1), (2, 50, 0.75, 1.5)]),
    "fewer tokens than threads": (different, 300, [(2, 50, 1, 1), (2, 256, 1, 1), (2, 299, 0.75, 1)]),
    "a token for each thread": (different, THREADS, [(3, 50, 1, 1), (3, 200, 1, 1)]),
    "a thread with a single token": (different, 8 * THREADS + 1, [(3, 50, 1, 1), (3, 50, 0.5, 0.8)]),
    "several vectors a thread": (different, 20011, [(3, 50, 1, 1), (3, 200, 1, 1), (3, 50, 0.875, 1.25)]),
    "whole vectors": (different, 20016, [(3, 50, 1, 1), (3, 0, 1, 1), (3, 0, 0.75, 1), (3, 5, 0.75, 1.25)]),
    "extreme k": (different, 5003, [(3, k, 1, 1) for k in (1, 2, MOST_TOP_K, MOST_TOP_K + 1, 5002, 5003, 5004)]),
    "k and top-p": (different, 5003, [(3, 50, p, 1) for p in (1e-6, 0.125, 0.5, 0.96875)] + [(3, 600, 0.75, 1)]),
    "k and a penalty": (different, 5003, [(3, 50, 1, 1.25), (3, 50, 1, 0.5), (3, 1, 1, 8)]),
    "k among equal scores": (quarters, 5003, [(2, k, 1, 1) for k in (1, 3, 20, 50, 150)] + [(2, 50, 0.5, 1)]),
    "equal scores": (equal, 5003, [(1, 50, 1, 1), (1, 50, 0.5, 1), (1, 1, 1, 1), (1, 300, 1, 1)]),
    "few equal scores": (equal, 900, [(1, 50, 1, 1), (1, 50, 0.5, 1), (1, 0, 0.5, 1), (1, 50, 1, 2)]),
    "great scores side by side": (growing, 5003, [(1, 50, 1, 1), (1, 250, 1, 1), (1, 50, 0.5, 1)]),
    "fewer finite scores than k": (masked, 1003, [(1, 50, 1, 1), (1, 50, 0.75, 1), (1, 250, 1, 1)]),
}


def drawn_by(device, case: Case, logits: np.ndarray, ways: list) -> tuple[dict, dict[str, np.ndarray]]:
    """Return a call's values before and after, each way of sampling for several sequences."""
    values = draw(case)
    values["logits"] = logits.astype(values["logits"].dtype)
    values["settings"] = np.array([ways[b % len(ways)] for b in range(B)], np.float32)
    return values, Memory(device, case, values).run()


@every_device_in_every_dtype
@pytest.mark.parametrize("name", CASES)
def test_result_is_that_of_the_reference(device, act, name):
    logits_of, V, ways = CASES[name]
    case = Case(DRAW_TOKEN, {"B": B, "T": T, "V": V}, act=act)
    values, after = drawn_by(device, case, logits_of(np.random.default_rng(V), V), ways)
    for target, expected in reference.evaluate(DRAW_TOKEN, values, case.sizes, {}, act).items():
        np.testing.assert_array_equal(after[target], expected, err_msg=target)


@every_device_in_every_dtype
def test_the_result_is_the_same_again(device, act):
    """Candidates are listed in the order in which threads find them, and the next run's may be another one."""
    case = Case(DRAW_TOKEN, {"B": B, "T": T, "V": 5003}, act=act)
    logits, ways = quarters(np.random.default_rng(0), 5003), [(2, 50, 0.75, 1), (2, 150, 1, 1)]
    first, second = (drawn_by(device, case, logits, ways)[1]["tokens"] for _ in range(2))
    np.testing.assert_array_equal(first, second)


@every_device_in_every_dtype
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_scores_without_an_order_leave_a_token_of_the_vocabulary(device, act, value, share):
    case = Case(DRAW_TOKEN, {"B": B, "T": T, "V": 1003}, act=act)
    random = np.random.default_rng(0)
    logits = np.where(random.random((B, 1003)) < share, value, random.normal(size=(B, 1003)))
    _, after = drawn_by(device, case, logits, [(1, 50, 1, 1), (1, 50, 0.5, 1), (1, 0, 1, 1), (1, 300, 1, 1.5)])
    assert ((after["tokens"] >= 0) & (after["tokens"] < 1003)).all()
