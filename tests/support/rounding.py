"""Numbers with a bound on the error of their f32 computation: running error analysis.

A `Rounded` holds exact-looking float64 values and, for each, a bound of |f32 result - value|. Every operation adds the
error that its inputs bring along and the error of its own rounding, so a formula written with `Rounded` gives its own
tolerance and nothing is tuned. Higham 2002, "Accuracy and Stability of Numerical Algorithms", sections 3.1 to 3.3.

The bounds hold for every order of a sum and of a product's factors (sums are bounded by the number of their additions),
with and without fused multiply-add, which only leaves roundings out. A term lost or a factor forgotten is far outside.
"""

from collections.abc import Sequence
from typing import Union

import numpy as np

F32_ROUNDOFF = 2.0**-24
F64_ROUNDOFF = 2.0**-53
UNDERFLOW = 2.0**-126  # smaller numbers may lose digits or be flushed to zero
EXP_ERROR_ULPS = 2.0  # of exp_f32 in kernels/formulas.h; test_formulas.py proves it
EXP_ARGUMENT_LOWEST = -87.0  # exp_f32 clamps there
# of a GPU's own exponential: 2^-22 (PTX ISA, ex2.approx), and for each unit of x the rounding of x log2(e)
QUICK_EXP_ERROR, QUICK_EXP_ERROR_OF_X = 2.0**-22, 2.0**-23
TRUNCATING = (
    2 * F32_ROUNDOFF
)  # matrix units cut sums off; Fasi et al. 2021, "Numerical behavior of NVIDIA tensor cores"
LOG_ERROR_ULPS = 1.0  # of logf: the GNU C library's manual, "Known Maximum Errors in Math Functions"
ULP = 2 * F32_ROUNDOFF  # a unit in the last place, relative to the value, at most

Operand = Union["Rounded", np.ndarray, float]


def accumulated(roundings: int, roundoff: float = F32_ROUNDOFF) -> float:
    """Return Higham's gamma: the largest relative error of a value after this many roundings."""
    return roundings * roundoff / (1 - roundings * roundoff)


def constant(value: float) -> "Rounded":
    """Return a constant that a kernel's source gives in decimals, which the compiler rounds."""
    return Rounded(value, F32_ROUNDOFF * abs(value))


def _once(value: np.ndarray, error: np.ndarray, relative: float = F32_ROUNDOFF) -> "Rounded":
    """Return a result that carries `error` from its inputs and is rounded now."""
    return Rounded(value, error + relative * (np.abs(value) + error) + UNDERFLOW)


class Rounded:
    """value: float64; error: bound of |f32 - value|, of the same shape; an exact input has none."""

    __array_ufunc__ = None  # an ndarray on the left leaves the operation to us

    def __init__(self, value: np.ndarray | float, error: np.ndarray | float = 0.0):
        self.value = np.asarray(value, np.float64)
        self.error = np.broadcast_to(np.asarray(error, np.float64), self.value.shape)

    @property
    def largest(self) -> np.ndarray:
        """The largest magnitude that the f32 result can have."""
        return np.abs(self.value) + self.error

    def __add__(self, other: Operand) -> "Rounded":
        other = _wrap(other)
        return _once(self.value + other.value, self.error + other.error)

    def __neg__(self) -> "Rounded":
        return Rounded(-self.value, self.error)

    def __sub__(self, other: Operand) -> "Rounded":
        return self + -_wrap(other)

    def __rsub__(self, other: Operand) -> "Rounded":
        return _wrap(other) + -self

    def __mul__(self, other: Operand) -> "Rounded":
        other = _wrap(other)
        return _once(self.value * other.value, self.largest * other.largest - np.abs(self.value * other.value))

    def __truediv__(self, other: Operand) -> "Rounded":
        other = _wrap(other)
        value, smallest = self.value / other.value, np.abs(other.value) - other.error
        assert (smallest > 0).all(), "a divisor that may be zero"
        return _once(value, (self.error + np.abs(value) * other.error) / smallest)

    def __rtruediv__(self, other: Operand) -> "Rounded":
        return _wrap(other) / self

    def __getitem__(self, index: object) -> "Rounded":
        return Rounded(self.value[index], self.error[index])

    def transpose(self, *axes: int) -> "Rounded":
        return Rounded(self.value.transpose(*axes), self.error.transpose(*axes))

    def where(self, mask: np.ndarray) -> "Rounded":
        """Return zero, exactly, where mask is false."""
        return Rounded(np.where(mask, self.value, 0.0), np.where(mask, self.error, 0.0))

    def minimum(self, limit: float) -> "Rounded":
        return Rounded(np.minimum(self.value, limit), self.error)

    def maximum_of_rows(self) -> "Rounded":
        """Return the maximum over the last axis, which stays with size 1. |max a - max b| <= max |a - b|."""
        return Rounded(self.value.max(-1, keepdims=True), self.error.max(-1, keepdims=True))

    def sum(self, axis: int, start: Operand = 0.0, keepdims: bool = False, roundoff: float = F32_ROUNDOFF) -> "Rounded":
        """Return start + the sum over an axis, added in any order with this unit roundoff."""
        start, terms = _wrap(start), self.value.shape[axis]
        errors = start.error + self.error.sum(axis, keepdims=keepdims)
        magnitude = start.largest + self.largest.sum(axis, keepdims=keepdims)
        value = start.value + self.value.sum(axis, keepdims=keepdims)
        return Rounded(value, errors + accumulated(terms, roundoff) * magnitude)

    def mean(self, axis: int, keepdims: bool = False) -> "Rounded":
        return self.sum(axis, keepdims=keepdims) / float(self.value.shape[axis])

    def stored(self, roundoff: float = F32_ROUNDOFF) -> "Rounded":
        """Return a value computed more exactly as it is once written in a dtype of this unit roundoff."""
        return _once(self.value, self.error, roundoff)

    def sqrt(self) -> "Rounded":
        value = np.sqrt(self.value)
        below = value - np.sqrt(np.maximum(self.value - self.error, 0.0))
        return _once(value, np.maximum(below, np.sqrt(self.value + self.error) - value))

    def exp(self, quick: bool = False) -> "Rounded":
        """Return e^x as exp_f32 of kernels/formulas.h computes it; quick: or as a GPU does by its own instruction."""
        value, clamped = np.exp(self.value), self.value - self.error < EXP_ARGUMENT_LOWEST
        error = value * np.expm1(self.error) + np.where(clamped, np.exp(EXP_ARGUMENT_LOWEST), 0.0)
        relative = QUICK_EXP_ERROR + QUICK_EXP_ERROR_OF_X * self.largest if quick else 0.0
        return _once(value, error, np.maximum(relative, EXP_ERROR_ULPS * ULP))

    def log(self) -> "Rounded":
        assert (self.error < self.value).all(), "the logarithm of what may be zero"
        return _once(np.log(self.value), -np.log1p(-self.error / self.value), LOG_ERROR_ULPS * ULP)

    def sigmoid(self, quick: bool = False) -> "Rounded":
        """Return 1 / (e^-x + 1). Beyond the clamps of exp_f32 it is 0 or 1 within e^-87.

        The error that x brings along is carried by sigmoid' <= e^-|x|, and by 1/4 at most.
        """
        limit = -EXP_ARGUMENT_LOWEST
        result = 1.0 / (Rounded(np.clip(-self.value, -limit, limit)).exp(quick) + 1.0)
        nearest = np.maximum(np.abs(self.value) - self.error, 0.0)
        carried = self.error * np.minimum(0.25, np.exp(-nearest))
        return Rounded(result.value, result.error + carried + np.exp(-limit))


def matmul(left: Rounded, right: Rounded, start: Operand = 0.0, roundoff: float = F32_ROUNDOFF) -> Rounded:
    """Return start + left @ right: each of K products is rounded, then takes part in at most K additions."""
    return _product(left, right, start, accumulated(left.value.shape[-1] + 1, roundoff))


def split_matmul(left: Rounded, right: Rounded, start: Operand = 0.0) -> Rounded:
    """Return start + left @ right as AMX's tiles multiply f32 (kernels/cpu/gemm/tile_amx.h, pack_bf16x3.h).

    For every 32 terms, six instructions multiply the three bf16 of the left by those of the right, the largest pair
    last. Each adds its sum to a running sum. With m, the sum of the terms' magnitudes, these roundings of m add up:

    - A product of two bf16 is exact. An instruction sums even and odd terms apart, then both sums: half its terms, at
      most 16 roundings. The six products' magnitudes may exceed m by 2^-6, which costs less than 1 more.
    - The running sum takes 6 additions for every 32 terms. Before the largest product of the first 32, it is below
      2^-6 m, so that the first 6 additions cost less than 2.
    - What the split leaves out is less than 1 (test_bf16x3.py).
    - The start value is added last: 1.
    """
    terms = left.value.shape[-1]
    within, steps = min((terms + 1) // 2, 16) + 1, -(-terms // 32)
    return _product(left, right, start, accumulated(within + 6 * (steps - 1) + 2 + 1 + 1))


def _product(left: Rounded, right: Rounded, start: Operand, relative: float) -> Rounded:
    """Return start + left @ right, off by `relative` of the magnitudes' sum."""
    start = _wrap(start)
    magnitude = start.largest + left.largest @ right.largest
    carried = start.error + left.error @ right.largest + np.abs(left.value) @ right.error
    return Rounded(start.value + left.value @ right.value, carried + relative * magnitude)


def stack(parts: Sequence[Rounded], axis: int) -> Rounded:
    """Return the parts stacked along a new axis."""
    return Rounded(np.stack([part.value for part in parts], axis), np.stack([part.error for part in parts], axis))


def _wrap(operand: Operand) -> Rounded:
    return operand if isinstance(operand, Rounded) else Rounded(operand)
