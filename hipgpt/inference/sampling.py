"""Continue texts by the tokens that the device draws."""

import operator
import time
from collections.abc import Callable, Iterator, Sequence

from hipgpt.config.settings import SamplingConfig
from hipgpt.gpt.decoder import Decoder

STEPS_AHEAD = 16  # of a GPU, at first; a CPU begins with one. Tokens are shown by so many at once
WAIT = 0.03  # seconds; after a shorter wait, twice as many steps run ahead, unless a sequence starts again


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
    for tokens in _drawn(decoder, sampling.num_tokens):
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
    decoder: Decoder,
    prompts: Sequence[Sequence[int]],
    sampling: SamplingConfig,
    end_of_text: int,
    is_enough: Callable[[Sequence[int]], bool] = lambda tokens: False,
) -> Iterator[list[int]]:
    """Yield the continuation of each prompt. Prompt number i draws from stream i. See `generate`.

    The decoder takes as many prompts at once as it has sequences. It draws no more for them when is_enough has been
    true of the continuation of each.
    """
    for first in range(0, len(prompts), decoder.sequences):
        group = prompts[first : first + decoder.sequences]
        filled = [*group, *[[end_of_text]] * (decoder.sequences - len(group))]
        found: list[list[int]] = [[] for _ in group]
        enough = [False] * len(group)
        for step in generate(decoder, filled, sampling, end_of_text, stream=first):
            for number, (tokens, token) in enumerate(zip(found, step[: len(group)], strict=True)):
                if token is not None:
                    tokens.append(token)
                enough[number] = enough[number] or token is None or is_enough(tokens)
            if all(enough):
                break
        yield from found


def _drawn(decoder: Decoder, most: int) -> Iterator[list[int]]:
    """Yield the tokens of `most` steps. A fast device runs many of them before the host looks at their tokens."""
    ahead = 1 if decoder.device.traits.shares_host_memory else STEPS_AHEAD
    while most > 0:
        started = time.perf_counter()
        drawn = decoder.draw(min(ahead, most))
        if len(drawn) == ahead and time.perf_counter() - started < WAIT:
            ahead *= 2
        most -= len(drawn)
        yield from drawn
