"""Continuing a text: the distribution that a token is drawn from, and the draw."""

import itertools
import operator
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from hipgpt.config.settings import SamplingConfig
from hipgpt.gpt.decoder import Decoder


def probabilities(logits: NDArray[np.float32], context: Sequence[int], sampling: SamplingConfig) -> NDArray[np.float64]:
    """Return the distribution (V,) f64 that a token is drawn from.

    In this order: repetition penalty (Keskar et al. 2019, arXiv:1909.05858), temperature, top-k, top-p (Holtzman et al.
    2020, arXiv:1904.09751: the smallest set of likeliest tokens whose probabilities sum to at least top_p).
    Equal logits count as ordered by id, the lowest first. Temperature 0 puts all on the likeliest token.
    Raises ValueError for other logits than (V,) floats, and for a context of other ids than the vocabulary's.
    """
    if logits.ndim != 1 or len(logits) == 0 or logits.dtype.kind != "f":
        raise ValueError(f"probabilities: got logits {logits.dtype} {logits.shape}, expected floats (V,)")
    scores = logits.astype(np.float64)
    seen = np.unique(np.asarray(context))
    if len(seen) and not (seen.dtype.kind in "iu" and 0 <= seen[0] <= seen[-1] < len(scores)):
        raise ValueError(f"probabilities: got a context of {seen[0]} to {seen[-1]}, expected ids below {len(scores)}")
    seen = seen.astype(np.int64)
    penalty = sampling.repetition_penalty
    scores[seen] = np.where(scores[seen] > 0, scores[seen] / penalty, scores[seen] * penalty)
    if sampling.temperature == 0:
        likeliest = np.zeros(len(scores))
        likeliest[scores.argmax()] = 1
        return likeliest
    chosen = _chosen(scores, sampling)
    weights = _weights(scores[chosen], sampling.temperature)
    result = np.zeros(len(scores))
    result[chosen] = weights / weights.sum()
    return result


def _chosen(scores: NDArray[np.float64], sampling: SamplingConfig) -> NDArray[np.intp]:
    """Return the ids that top-k and top-p leave."""
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
    """Return the scores' probabilities up to a factor, 1 for the largest."""
    with np.errstate(over="ignore"):  # near temperature 0 a quotient may be -inf, whose exp is 0 as it should be
        quotients: NDArray[np.float64] = (scores - scores.max()) / temperature
        return np.exp(quotients)


def _largest(values: NDArray[np.float64], count: int, smallest: float) -> NDArray[np.intp]:
    """Return the indices of the `count` largest values, the last of which is `smallest`; of equal ones the first."""
    above = np.flatnonzero(values > smallest)
    return np.concatenate([above, np.flatnonzero(values == smallest)[: count - len(above)]])


def generate(
    decoder: Decoder, prompt: Sequence[int], sampling: SamplingConfig, end_of_text: int, stream: int = 0
) -> Iterator[int]:
    """Yield the tokens that follow `prompt` (ids; empty: a new document), at most sampling.num_tokens of them.

    Ends before <|endoftext|> if sampling.stop_at_end_of_text. One uniform number a token, from Philox with the key
    (seed, stream): same seed and stream, same text; none at temperature 0. The penalty looks at the decoder's window.
    """
    for name, number in (("seed", sampling.seed), ("stream", stream)):
        if not 0 <= operator.index(number) < 2**64:
            raise ValueError(f"generate: {name}: got {number}, expected 0 to 2^64 - 1")
    decoder.restart(list(prompt) or [end_of_text])
    likeliest = sampling.temperature == 0 and sampling.repetition_penalty == 1
    tokens = _greedy_tokens(decoder) if likeliest else _drawn_tokens(decoder, sampling, stream)
    for token in itertools.islice(tokens, sampling.num_tokens):
        if sampling.stop_at_end_of_text and token == end_of_text:
            return
        yield token


def _greedy_tokens(decoder: Decoder) -> Iterator[int]:
    while True:
        yield decoder.append_likeliest()


def _drawn_tokens(decoder: Decoder, sampling: SamplingConfig, stream: int) -> Iterator[int]:
    random = np.random.Generator(np.random.Philox(key=np.array([sampling.seed, stream], np.uint64)))
    while True:
        cumulative = np.cumsum(probabilities(decoder.logits(), decoder.window, sampling))
        token = int(np.searchsorted(cumulative, random.random() * cumulative[-1], side="right"))
        yield token
        decoder.append(token)
