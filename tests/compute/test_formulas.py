"""kernels/formulas.h: the accuracy it claims, and Philox as published."""

import ctypes
import math

import numpy as np
import pytest
from support import SUPPORT, reference
from support.rounding import EXP_ERROR_ULPS

from hipgpt.base.compiler import host_library

# a prime: consecutive samples differ in all low bits; 1 makes the test exhaustive (7 s, largest error 0.9 ulp with and
# 1.2 without fused multiply-add)
STRIDE = 13
# counter, key, result: Random123's tests/kat_vectors, the lines "philox4x32 10"
PHILOX = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


@pytest.fixture(scope="module")
def probe():
    library = ctypes.CDLL(str(host_library(SUPPORT / "formulas_probe.cpp")))
    library.exp_error_ulps.restype = ctypes.c_double
    library.exp_f32_of.restype, library.exp_f32_of.argtypes = ctypes.c_float, [ctypes.c_float]
    return library


def words(text: str) -> np.ndarray:
    return np.array([int(word, 16) for word in text.split()], np.uint32)


def bits(x: float) -> int:
    return int(np.float32(x).view(np.uint32))


@pytest.mark.parametrize("sign, furthest", [(1, 88.0), (-1, 87.0)], ids=["positive", "negative"])
def test_exp_is_as_accurate_as_formulas_h_says(probe, sign, furthest):
    tiny = 2.0**-26  # below it, e^x rounds to 1
    at = ctypes.c_float()
    error = probe.exp_error_ulps(bits(sign * tiny), bits(sign * furthest), STRIDE, ctypes.byref(at))
    assert error < EXP_ERROR_ULPS, f"{error:.3f} units in the last place at {at.value!r}"


@pytest.mark.parametrize("x, clamped", [(-87.5, -87), (-1e30, -87), (-math.inf, -87), (88.5, 88), (1e30, 88)])
def test_exp_clamps_its_argument(probe, x, clamped):
    assert probe.exp_f32_of(x) == probe.exp_f32_of(clamped)


@pytest.mark.parametrize("x", [0.0, -0.0, 1e-30, -1e-30, 2.0**-149])
def test_exp_around_zero_is_one(probe, x):
    assert probe.exp_f32_of(x) == 1.0


@pytest.mark.parametrize("counter, key, expected", PHILOX)
def test_philox_gives_the_published_words(probe, counter, key, expected):
    got = np.empty(4, np.uint32)
    pointers = (array.ctypes.data_as(ctypes.c_void_p) for array in (got, words(counter), words(key)))
    probe.philox_of(*pointers)
    np.testing.assert_array_equal(got, words(expected))


@pytest.mark.parametrize("counter, key, expected", PHILOX)
def test_philox_of_the_reference_gives_them_too(counter, key, expected):
    np.testing.assert_array_equal(reference.philox(words(counter), words(key)), words(expected))
