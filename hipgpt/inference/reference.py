"""The distribution that tokens are drawn from, in NumPy: to be read, and to compare the kernels of DRAW_TOKEN with."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hipgpt.config.settings import SamplingConfig


def probabilities(logits: NDArray[np.float32], context: Sequence[int], sampling: SamplingConfig) -> NDArray[np.float64]:
    """Return the distribution (V,) f64 that a token is drawn from.

    In this order: repetition penalty (Keskar et al. 2019, arXiv:1909.05858), temperature, top-k, top-p (Holtzman et al.
    2020, arXiv:1904.09751: the smallest set of most probable tokens whose probabilities sum to at least top_p).
    Ties go to the lower id. Temperature 0 gives the greedy token the probability 1. logits: (V,) f32; context: ids that
    the repetition penalty applies to. Raises ValueError for other shapes and ids.
    """
    ids, weights = _candidates(logits, context, sampling)
    result = np.zeros(len(logits))
    result[ids] = weights / weights.sum()
    return result


def _candidates(
    logits: NDArray[np.float32], context: Sequence[int], sampling: SamplingConfig
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the ids that may be drawn, ascending, and their probabilities up to a factor."""
    if logits.ndim != 1 or len(logits) == 0 or logits.dtype.kind != "f":
        raise ValueError(f"probabilities: got logits {logits.dtype} {logits.shape}, expected floats (V,)")
    scores = logits.astype(np.float64)
    if sampling.repetition_penalty != 1:
        _penalize(scores, context, sampling.repetition_penalty)
    if sampling.temperature == 0:
        return np.array([scores.argmax()]), np.ones(1)
    ids = _chosen(scores, sampling)
    return ids, _weights(scores[ids], sampling.temperature)


def _penalize(scores: NDArray[np.float64], context: Sequence[int], penalty: float) -> None:
    """Lower the scores of the tokens of the context, in place."""
    seen = np.unique(np.asarray(context))
    if len(seen) and not (seen.dtype.kind in "iu" and 0 <= seen[0] <= seen[-1] < len(scores)):
        raise ValueError(f"probabilities: got a context of {seen[0]} to {seen[-1]}, expected ids below {len(scores)}")
    seen = seen.astype(np.int64)
    scores[seen] = np.where(scores[seen] > 0, scores[seen] / penalty, scores[seen] * penalty)


def _chosen(scores: NDArray[np.float64], sampling: SamplingConfig) -> NDArray[np.intp]:
    """Return the ids that top-k and top-p allow."""
    ids = np.arange(len(scores))
    if sampling.top_k is not None and sampling.top_k < len(scores):
        ids = _largest(scores, sampling.top_k, np.partition(scores, -sampling.top_k)[-sampling.top_k])
    if sampling.top_p < 1:
        descending = np.sort(scores[ids])[::-1]
        cumulative = np.cumsum(_weights(descending, sampling.temperature))
        last = int(np.searchsorted(cumulative, sampling.top_p * cumulative[-1]))
        ids = ids[_largest(scores[ids], last + 1, descending[last])]
    return ids


def _weights(scores: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Return the probabilities of the scores up to a factor: the largest score has weight 1."""
    with np.errstate(over="ignore"):  # near temperature 0 a quotient may be -inf; its exp is 0, which is right
        quotients: NDArray[np.float64] = (scores - scores.max()) / temperature
        return np.exp(quotients)


def _largest(values: NDArray[np.float64], count: int, smallest: float) -> NDArray[np.intp]:
    """Return the `count` indices of the largest values, ascending; `smallest` is the least of them.

    Ties go to the lower index.
    """
    indices = np.flatnonzero(values >= smallest)
    if len(indices) == count:
        return indices
    ties = np.flatnonzero(values[indices] == smallest)
    return np.delete(indices, ties[count - len(indices) :])
