"""The learning-rate schedule."""

import math

import numpy as np
from numpy.typing import NDArray

from hipgpt.config.settings import TrainingConfig


def learning_rate(training: TrainingConfig, step: int) -> float:
    """Return the learning rate of a step, 1 <= step <= training.steps.

    Linear warm-up to the peak, then down to the floor: `cosine`, half a cosine (Loshchilov & Hutter 2017,
    arXiv:1608.03983); `wsd` (warm-up, stable, decay), constant until a line falls over the last decay_fraction of the
    steps (Hu et al. 2024, arXiv:2404.06395).
    """
    warmup_steps = round(training.warmup_fraction * training.steps)
    if step <= warmup_steps:
        return training.learning_rate_peak * step / warmup_steps
    floor = training.learning_rate_floor_fraction
    if training.schedule == "wsd":
        decay_steps = training.decay_fraction * training.steps
        left = min(1.0, (training.steps - step) / decay_steps) if decay_steps else 1.0
    else:
        progress = (step - warmup_steps) / (training.steps - warmup_steps)
        left = 0.5 * (1 + math.cos(math.pi * progress))
    return training.learning_rate_peak * (floor + (1 - floor) * left)


def schedule(training: TrainingConfig, step: int) -> NDArray[np.float32]:
    """Return a row of ADAMW's schedule, (3) f32: the learning rate and both bias corrections of a step, from 1 on."""
    corrections = (1 / (1 - beta**step) for beta in (training.beta1, training.beta2))
    return np.array([learning_rate(training, step), *corrections], np.float32)
