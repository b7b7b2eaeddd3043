"""A draw by the host, from the distribution that hipgpt.inference.reference defines."""

import numpy as np

from hipgpt.config.settings import SamplingConfig
from hipgpt.inference.reference import probabilities


def drawn_by_the_host(logits, window, sampling: SamplingConfig, stream: int, number: int) -> int:
    """Return the token that draw `number` of a stream takes after a window."""
    keys = np.array([sampling.seed, stream], np.uint64)
    uniform = np.random.Generator(np.random.Philox(key=keys)).random(number + 1)[-1]
    cumulative = np.cumsum(probabilities(logits, window, sampling))
    return int(np.searchsorted(cumulative, uniform * cumulative[-1], side="right"))
