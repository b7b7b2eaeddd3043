"""Losses of windows, and bits per byte."""

import math

import numpy as np


def bits_per_byte(nats: np.ndarray, byte_counts: np.ndarray) -> float:
    """Return the corpus's bits per byte, comparable across tokenizers.

    nats: (...) loss of each target token; byte_counts: (...) the bytes it stands for, 0 leaves a token out.
    Raises ValueError if byte_counts sums to 0. Formula: sum(nats[byte_counts > 0]) / (ln 2 * sum(byte_counts)).
    """
    total = int(byte_counts.sum())
    if total == 0:
        raise ValueError("bits_per_byte: the tokens stand for no bytes")
    return float(nats[byte_counts > 0].sum(dtype=np.float64)) / (math.log(2) * total)
