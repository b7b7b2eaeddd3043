"""Measure the loss on windows of the validation split while a run trains."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hipgpt.base.errors import UserError
from hipgpt.config.settings import ModelConfig, TrainingConfig
from hipgpt.data.bits_per_byte import bits_per_byte
from hipgpt.data.tokens import Tokens


@dataclass(frozen=True)
class Splits:
    """The tokens of both splits, and (V,) the number of bytes that each token stands for."""

    train: Tokens
    validation: Tokens
    byte_counts: NDArray[np.int64]


class ValidationSet:
    """Windows spread evenly over the validation split. Each validation scores all of them."""

    def __init__(self, splits: Splits, model: ModelConfig, training: TrainingConfig):
        S, tokens = model.context_length, splits.validation
        fitting = (len(tokens) - 1) // S
        if fitting < 1:
            raise UserError(
                f"model.context_length: got {S}, expected less than the validation split's {len(tokens)} tokens; "
                "shorten the context or give the corpus more text"
            )
        count = min(training.validation_windows, fitting)
        self._windows = tokens.windows(np.arange(count) * fitting // count * S, S + 1)
        self._byte_counts = splits.byte_counts

    def measure(self, score: Callable[[NDArray[np.int32]], NDArray[np.float32]]) -> tuple[float, float]:
        """Return the mean loss in nats per token and the bits per byte. score: returns the losses of windows."""
        nats = score(self._windows)
        return float(nats.mean(dtype=np.float64)), bits_per_byte(nats, self._byte_counts[self._windows[:, 1:]])
