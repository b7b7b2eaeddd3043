"""The learning-rate schedule."""

import math

import numpy as np
from numpy.typing import NDArray

from hipgpt.config.settings import TrainingConfig


def learning_rate(training: TrainingConfig, step: int) -> float:
    """Return the learning rate of a step, 1 <= step <= training.steps.

    Linear warm-up to the peak, then half a cosine down to the floor. Loshchilov & Hutter 2017, arXiv:1608.03983.
    """
    warmup_steps = round(training.warmup_fraction * training.steps)
    if step <= warmup_steps:
        return training.learning_rate_peak * step / warmup_steps
    progress = (step - warmup_steps) / (training.steps - warmup_steps)
    floor = training.learning_rate_floor_fraction
    return training.learning_rate_peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))


def schedule(training: TrainingConfig, step: int) -> NDArray[np.float32]:
    """Return a row of ADAMW's schedule, (3) f32: the learning rate and both bias corrections of a step, from 1 on."""
    corrections = (1 / (1 - beta**step) for beta in (training.beta1, training.beta2))
    return np.array([learning_rate(training, step), *corrections], np.float32)
