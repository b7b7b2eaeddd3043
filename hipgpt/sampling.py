"""Continuing a text: one token at a time, keys and values of earlier tokens cached on the device."""

import csv
import io
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hipgpt.backends.device import Device
from hipgpt.config import ModelConfig, SamplingConfig, TrainingConfig
from hipgpt.files import replacing
from hipgpt.model import Network, activations, kv_cache
from hipgpt.ops import LIKELIEST_TOKEN
from hipgpt.parameters import Weights
from hipgpt.plan import Plan
from hipgpt.tensor import Arena, DType, Field
from hipgpt.tokenizer import Tokenizer

TRAINING_TEMPERATURE, TRAINING_TOP_K = 0.8, 50


class Decoder:
    """A sequence under continuation.

    The model has no position beyond its context length T. When the cache is full, decoding starts again from the last
    T // 2 tokens: each prediction then sees between T // 2 and T tokens, and a token costs two passes on average.
    Activations, cache and logits have the dtype of the weights.
    """

    def __init__(self, device: Device, model: ModelConfig, weights: Weights):
        self.device, self.model, act = device, model, weights.arena.flat.dtype
        self.window: list[int] = []
        # one field, so that a token costs one write
        inputs = Arena(device, "inputs", [Field("token_and_position", (2,), DType.I32)])
        cache = Arena(device, "kv_cache", kv_cache(model, sequences=1, act=act))
        saved = Arena(device, "activations", activations(model, 1, 1, act))
        self._token_and_position, self._logits = inputs["token_and_position"], saved["logits"]
        token, position = self._token_and_position.rows(0, 1).view(1, 1), self._token_and_position.rows(1, 2)
        given = [weights.arena.flat, inputs.flat, cache.flat]
        self._plan = Plan(device, "decode", given, act)
        self._greedy_plan = Plan(device, "decode the likeliest", [*given, self._logits], act)
        self._greedy_plan(LIKELIEST_TOKEN, token.view(1), position, self._logits)
        network = Network(model, weights, saved, token, position, cache=cache)
        for plan in (self._plan, self._greedy_plan):
            network.forward(plan)
            network.logits(plan)

    def restart(self, tokens: Sequence[int]) -> None:
        """Forget the sequence and read the last T of `tokens`."""
        self.window = []
        for token in tokens[-self.model.context_length :]:
            self.append(token)

    def append(self, token: int) -> None:
        """Read one more token."""
        if len(self.window) == self.model.context_length:
            kept = self.model.context_length // 2
            self.restart([*self.window, token][-kept:])
            return
        self.device.write(self._token_and_position, np.array([token, len(self.window)], np.int32))
        self._plan.run()
        self.window.append(token)

    def append_likeliest(self) -> int:
        """Read the likeliest token next, of equally likely ones the lowest id, and return it.

        The device chooses it: the host waits for one number instead of reading the logits.
        """
        if len(self.window) == self.model.context_length:
            self.append(int(self.logits().argmax()))
        else:
            self._greedy_plan.run()
            self.window.append(int(self.device.read(self._token_and_position)[0]))
        return self.window[-1]

    def logits(self) -> np.ndarray:
        """Return (V,) f32: the logits of the token after those read so far."""
        return self.device.read(self._logits)[0].astype(np.float32, copy=False)


def probabilities(logits: np.ndarray, context: Sequence[int], sampling: SamplingConfig) -> np.ndarray:
    """Return the distribution (V,) f64 that a token is drawn from.

    In this order: repetition penalty (Keskar et al. 2019, arXiv:1909.05858), temperature, top-k, top-p (Holtzman et al.
    2020, arXiv:1904.09751: the smallest set of likeliest tokens whose probabilities sum to at least top_p).
    Equal logits count as ordered by id, the lowest first. Temperature 0 puts all on the likeliest token.
    """
    scores = logits.astype(np.float64)
    seen = np.unique(np.asarray(context, np.int64))
    penalty = sampling.repetition_penalty
    scores[seen] = np.where(scores[seen] > 0, scores[seen] / penalty, scores[seen] * penalty)
    if sampling.temperature == 0:
        return (np.arange(len(scores)) == scores.argmax()).astype(np.float64)
    chosen = _chosen(scores, sampling)
    weights = _weights(scores[chosen], sampling.temperature)
    result = np.zeros(len(scores))
    result[chosen] = weights / weights.sum()
    return result


def _chosen(scores: np.ndarray, sampling: SamplingConfig) -> np.ndarray:
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


def _weights(scores: np.ndarray, temperature: float) -> np.ndarray:
    """Return the scores' probabilities up to a factor, 1 for the largest."""
    with np.errstate(over="ignore"):  # near temperature 0 a quotient may be -inf, whose exp is 0 as it should be
        return np.exp((scores - scores.max()) / temperature)


def _largest(values: np.ndarray, count: int, smallest: float) -> np.ndarray:
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
    decoder.restart(list(prompt) or [end_of_text])
    likeliest = sampling.temperature == 0 and sampling.repetition_penalty == 1
    tokens = _likeliest_tokens(decoder) if likeliest else _drawn_tokens(decoder, sampling, stream)
    for token in itertools.islice(tokens, sampling.num_tokens):
        if sampling.stop_at_end_of_text and token == end_of_text:
            return
        yield token


def _likeliest_tokens(decoder: Decoder) -> Iterator[int]:
    while True:
        yield decoder.append_likeliest()


def _drawn_tokens(decoder: Decoder, sampling: SamplingConfig, stream: int) -> Iterator[int]:
    random = np.random.Generator(np.random.Philox(key=np.array([sampling.seed, stream], np.uint64)))
    while True:
        cumulative = np.cumsum(probabilities(decoder.logits(), decoder.window, sampling))
        token = int(np.searchsorted(cumulative, random.random() * cumulative[-1], side="right"))
        yield token
        decoder.append(token)


def training_sampler(
    device: Device, model: ModelConfig, training: TrainingConfig, tokenizer: Tokenizer
) -> Callable[[Weights], Callable[[], str]]:
    """Return what a training run takes as its sampler: it continues training.sample_prompt."""
    prompt = tokenizer.encode(training.sample_prompt).tolist()
    settings = SamplingConfig(training.sample_tokens, TRAINING_TEMPERATURE, TRAINING_TOP_K, seed=training.seed)

    def with_weights(weights: Weights) -> Callable[[], str]:
        decoder = Decoder(device, model, weights)
        return lambda: _text(tokenizer, [*prompt, *generate(decoder, prompt, settings, tokenizer.end_of_text)])

    return with_weights


def write_samples(decoder: Decoder, tokenizer: Tokenizer, settings: Mapping[str, Any], text: Path, table: Path) -> None:
    """Continue each prompt of the config's sampling section; write a text to read, and a CSV with the settings.

    Prompt number i draws from stream i, so adding a prompt leaves the others' texts as they were.
    """
    sampling = SamplingConfig(**{key: value for key, value in settings.items() if key != "prompts"})
    rows, blocks = [], []
    for number, prompt in enumerate(settings["prompts"]):
        ids = tokenizer.encode(prompt).tolist()
        continuation = list(generate(decoder, ids, sampling, tokenizer.end_of_text, stream=number))
        rows.append([number, prompt, _text(tokenizer, continuation), len(continuation), *vars(sampling).values()])
        blocks.append(f"--- prompt {number}\n{_text(tokenizer, ids + continuation)}\n")
    with replacing(text) as file:
        file.write("\n".join(blocks).encode())
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(["number", "prompt", "continuation", "tokens", *vars(sampling)])
    writer.writerows(rows)
    with replacing(table) as file:
        file.write(lines.getvalue().encode())


def _text(tokenizer: Tokenizer, tokens: Sequence[int]) -> str:
    return tokenizer.decode(tokens).decode("utf-8", "replace")
