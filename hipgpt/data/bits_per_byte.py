"""Bits per byte: the loss of a predictor, comparable across tokenizers."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def bits_per_byte(nats: NDArray[np.floating[Any]], byte_counts: NDArray[np.int64]) -> float:
    """Return the bits per byte of a text, which are comparable across tokenizers.

    nats: (...) loss of each target token; byte_counts: (...) bytes that it stands for; a token with 0 is left out.
    Raises ValueError if byte_counts sums to 0. Formula: sum(nats[byte_counts > 0]) / (ln 2 * sum(byte_counts)).
    """
    total = int(byte_counts.sum())
    if total == 0:
        raise ValueError("bits_per_byte: the tokens stand for no bytes")
    return float(nats[byte_counts > 0].sum(dtype=np.float64)) / (math.log(2) * total)
