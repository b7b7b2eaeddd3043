"""Continue a text: compute the distribution of the next token, and draw from it."""

import itertools
import operator
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from hipgpt.config.settings import SamplingConfig
from hipgpt.gpt.decoder import Decoder

STEPS_AHEAD = 16  # of a GPU; tokens are shown by so many at once


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


def generate(
    decoder: Decoder, prompts: Sequence[Sequence[int]], sampling: SamplingConfig, end_of_text: int, stream: int = 0
) -> Iterator[list[int | None]]:
    """Yield the next token of each sequence of the decoder, at most sampling.num_tokens times.

    prompts: ids for each sequence; where they are empty, a new document begins. If sampling.stop_at_end_of_text, a
    sequence ends before <|endoftext|>; then it has None, and nothing more is yielded when all have ended. The
    device draws. Each token takes one uniform number from Philox with the key (seed, stream + number of the sequence),
    so the same seed and stream give the same text. The repetition penalty applies to the tokens of the decoder's
    window.
    """
    for name, number in (("seed", sampling.seed), ("stream", stream), ("stream", stream + len(prompts) - 1)):
        if not 0 <= operator.index(number) < 2**64:
            raise ValueError(f"generate: {name}: got {number}, expected 0 to 2^64 - 1")
    decoder.restart([list(prompt) or [end_of_text] for prompt in prompts])
    decoder.sample_by(sampling, stream)
    ended = [False] * len(prompts)
    for tokens in itertools.islice(_drawn(decoder, sampling.num_tokens), sampling.num_tokens):
        if sampling.stop_at_end_of_text:
            ended = [before or token == end_of_text for before, token in zip(ended, tokens, strict=True)]
        if all(ended):
            return
        yield [None if over else token for over, token in zip(ended, tokens, strict=True)]


def generate_one(
    decoder: Decoder, prompt: Sequence[int], sampling: SamplingConfig, end_of_text: int, stream: int = 0
) -> Iterator[int]:
    """Yield the tokens that follow a prompt, for a decoder of one sequence. See `generate`."""
    for (token,) in generate(decoder, [prompt], sampling, end_of_text, stream):
        if token is not None:
            yield token


def generate_all(
    decoder: Decoder, prompts: Sequence[Sequence[int]], sampling: SamplingConfig, end_of_text: int
) -> Iterator[list[int]]:
    """Yield the continuation of each prompt. Prompt number i draws from stream i. See `generate`.

    The decoder takes as many prompts at once as it has sequences.
    """
    for first in range(0, len(prompts), decoder.sequences):
        group = prompts[first : first + decoder.sequences]
        filled = [*group, *[[end_of_text]] * (decoder.sequences - len(group))]
        steps = list(generate(decoder, filled, sampling, end_of_text, stream=first))
        for number in range(len(group)):
            yield [token for step in steps if (token := step[number]) is not None]


def _drawn(decoder: Decoder, most: int) -> Iterator[list[int]]:
    """Yield the tokens of each step. The device runs up to STEPS_AHEAD steps before the host waits for their tokens."""
    ahead = 1 if decoder.device.traits.shares_host_memory else min(most, STEPS_AHEAD)
    while True:
        yield from decoder.draw(ahead)
