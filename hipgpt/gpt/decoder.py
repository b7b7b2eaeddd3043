"""Sequences, continued token by token with cached keys and values."""

import functools
import operator
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from hipgpt.compute.catalogue import DRAW_TOKEN
from hipgpt.compute.device import Device
from hipgpt.compute.plan import Plan
from hipgpt.compute.tensor import Arena, DType, Field
from hipgpt.config.settings import ModelConfig, SamplingConfig
from hipgpt.gpt.activations import activations, kv_cache
from hipgpt.gpt.fused_decoding import fused_blocks, fused_tokens, stacked
from hipgpt.gpt.model import Network
from hipgpt.gpt.parameters import ParameterTensors
from hipgpt.gpt.prefill import Prefill

MOST_SEQUENCES, MOST_CACHE_BYTES = 64, 4 << 30
STEPS_OF_PLAN = 8  # at most, because a small model computes a token faster than a plan is launched
STEPS_OF_LAUNCH = 64  # at most, of several tokens in one launch, which begins by loading all weights


def sequences_together(model: ModelConfig, texts: int) -> int:
    """Return how many of so many texts to continue together: their cached keys and values must fit the memory."""
    bytes_each = sum(field.elements * field.dtype.size_bytes for field in kv_cache(model, sequences=1))
    return min(texts, MOST_SEQUENCES, max(1, MOST_CACHE_BYTES // bytes_each))


class Decoder:
    """Several texts, each of which a step continues by one token.

    windows[b]: the tokens of sequence b that the cache covers. With rotary positions a full cache slides: a new key
    takes the place of the oldest one, because only distances matter. Each prediction sees the last T tokens, T being
    the context length. A model with learned positions has none beyond T, so a sequence starts again from its last
    T // 2 tokens. From then on each prediction sees between T // 2 and T tokens. Activations, cache and logits have the
    dtype of the weights.

    The device draws tokens itself, so many steps run without waiting for the host. It has the windows too: the token at
    position p is in column p % T.
    """

    def __init__(self, device: Device, model: ModelConfig, weights: ParameterTensors, sequences: int = 1):
        self.device, self.model, self.sequences = device, model, sequences
        act = weights.arena.flat.dtype
        self.windows: list[deque[int]] = []
        self._positions = np.zeros(sequences, np.int32)  # of the next tokens
        # tokens and positions are one field, so that each step costs one transfer to the device
        integers = [
            Field("tokens_and_positions", (2, sequences), DType.I32),
            Field("windows", (sequences, model.context_length), DType.I32),
            Field("drawn", (sequences,), DType.I32),
            Field("keys", (sequences, 4), DType.I32),
        ]
        inputs = Arena(device, "inputs", integers)
        numbers = [Field("settings", (sequences, 4)), Field("scores", (sequences, model.vocab_size))]
        drawing = Arena(device, "drawing", numbers)
        cache = Arena(device, "kv_cache", kv_cache(model, sequences, act))
        saved = Arena(device, "activations", activations(model, sequences, 1, act))
        self._tokens_and_positions, self._logits = inputs["tokens_and_positions"], saved["logits"]
        self._tokens, positions = (self._tokens_and_positions.rows(row, row + 1).view(sequences) for row in (0, 1))
        self._device_windows, self._drawn, self._keys = inputs["windows"], inputs["drawn"], inputs["keys"]
        self._settings = drawing["settings"]
        gpt2 = stacked(model, weights, cache, sequences)
        fused, fused_steps = fused_blocks(device, gpt2), fused_tokens(device, gpt2)
        given = [weights.arena.flat, inputs.flat, cache.flat, self._settings, self._logits]
        given += [fused.exchange] if fused else []
        network = Network(model, weights, saved, self._tokens.view(sequences, 1), positions, cache, fused=fused)

        outputs = self._tokens, positions, self._device_windows, self._drawn
        logits, scores, drawn_from = self._logits, drawing["scores"], (self._settings, self._keys)

        # these functions do not know `self`: in a cycle it would keep its memory until a collection of garbage
        def draw(plan: Plan) -> None:
            plan(DRAW_TOKEN, *outputs, scores, logits, *drawn_from)

        def decode(plan: Plan) -> None:
            network.forward(plan)
            network.logits(plan)

        def draw_and_decode(plan: Plan, steps: int) -> None:
            if fused_steps:
                fused_steps(plan, outputs, logits, drawn_from, steps)
                return
            for _ in range(steps):
                draw(plan)
                decode(plan)

        def recorded(name: str, record: Callable[..., None], **settings: int) -> Plan:
            plan = Plan(device, name, given, act)
            record(plan, **settings)
            return plan

        self._plan, self._draw_plan = recorded("decode", decode), recorded("draw", draw)
        self._steps_plan = functools.cache(lambda steps: recorded("draw and decode", draw_and_decode, steps=steps))
        self._most_steps = STEPS_OF_LAUNCH if fused_steps else STEPS_OF_PLAN
        self._prefill = Prefill(device, model, weights, cache)
        self._forget()
        self.sample_by(SamplingConfig(0, temperature=0))

    def plans(self, beginning: int) -> list[Plan]:
        """Return the plans that continue a text, after one that reads a beginning of so many tokens, at least 1."""
        return [self._prefill.plan(beginning), self._plan, self._draw_plan, self._steps_plan(1)]

    def restart(self, texts: Sequence[Sequence[int]]) -> None:
        """Forget all sequences, and read the last T tokens of a text for each. A text has at least one token.

        Raises ValueError if the vocabulary lacks a token.
        """
        if len(texts) != self.sequences or not all(texts):
            raise ValueError(f"texts: got {[len(text) for text in texts]} tokens, expected {self.sequences} times >= 1")
        for text in texts:
            self._check(text)
        self._forget()
        self._begin({b: list(text)[-self.model.context_length : -1] for b, text in enumerate(texts)})
        self.append([text[-1] for text in texts])

    def append(self, tokens: Sequence[int]) -> None:
        """Read one more token of each sequence. Raises ValueError if the vocabulary lacks one."""
        if len(tokens) != self.sequences:
            raise ValueError(f"tokens: got {len(tokens)}, expected one for each of {self.sequences} sequences")
        self._check(tokens)
        if full := self._full():
            kept = self.model.context_length // 2 - 1
            self._begin({b: list(self.windows[b])[len(self.windows[b]) - kept :] for b in full})
        self.device.write(self._tokens_and_positions, np.array([tokens, self._positions], np.int32))
        self._plan.run()
        self._advance([tokens])
        self._is_current = False

    def sample_by(self, sampling: SamplingConfig, stream: int = 0) -> None:
        """Let `draw` follow these settings, as `hipgpt.inference.reference.probabilities` defines them.

        Number n that sequence b takes is number n of Philox with the key (sampling.seed, stream + b). A new decoder
        takes the greedy token.
        """
        top_p = max(sampling.top_p, float(np.finfo(np.float32).tiny))  # in f32 it stays above 0
        settings = (sampling.temperature, sampling.top_k or 0, top_p, sampling.repetition_penalty)
        keys = np.array([[sampling.seed, stream + b] for b in range(self.sequences)], "<u8")
        self.device.write(self._settings, np.tile(np.array(settings, np.float32), (self.sequences, 1)))
        self.device.write(self._keys, keys.view(np.int32))
        self.device.write(self._drawn, np.zeros(self.sequences, np.int32))

    def draw(self, steps: int = 1) -> list[list[int]]:
        """Draw and read one token of each sequence after another; return those of each step, at most `steps` of them.

        There are fewer if a sequence has to start again from its last tokens before that, and never more than T.
        """
        self._update_windows()
        left = self._positions_left()
        steps = min(steps, max(1, left), self.model.context_length)  # the device keeps so many tokens
        first = self._positions.copy()
        if not left:
            self._draw_plan.run()
        else:
            for together in _powers_of_two(steps, self._most_steps):
                self._steps_plan(together).run()
        drawn = self._drawn_from(first, steps)
        if left:
            self._advance(drawn)
        else:
            self.append(drawn[0])
        return drawn

    def logits(self) -> NDArray[np.float32]:
        """Return (sequences, V) f32: the logits of the tokens after those read so far."""
        logits: NDArray[np.float32] = self.device.read(self._logits).astype(np.float32, copy=False)
        return logits

    def _forget(self) -> None:
        self.windows = [deque(maxlen=self.model.context_length) for _ in range(self.sequences)]
        self._positions[:] = 0
        self._is_current = False  # whether the device has these windows and positions

    def _begin(self, beginnings: dict[int, list[int]]) -> None:
        """Replace the windows of these sequences."""
        for b, tokens in beginnings.items():
            self.windows[b] = deque(tokens, self.model.context_length)
            self._positions[b] = len(tokens)
        self._prefill({b: tokens for b, tokens in beginnings.items() if tokens})

    def _drawn_from(self, first: NDArray[np.int32], steps: int) -> list[list[int]]:
        """Return the tokens at `steps` positions of each sequence, from `first` on."""
        if steps == 1:
            last: list[int] = self.device.read(self._tokens).tolist()
            return [last]
        columns = (first + np.arange(steps)[:, None]) % self.model.context_length
        tokens: list[list[int]] = self.device.read(self._device_windows)[np.arange(self.sequences), columns].tolist()
        return tokens

    def _update_windows(self) -> None:
        """Give the device the windows, and the positions of their last tokens."""
        if self._is_current:
            return
        T = self.model.context_length
        windows = np.zeros((self.sequences, T), np.int32)
        for b, window in enumerate(self.windows):
            windows[b, np.arange(self._positions[b] - len(window), self._positions[b]) % T] = window
        last = [window[-1] for window in self.windows]
        self.device.write(self._device_windows, windows)
        self.device.write(self._tokens_and_positions, np.array([last, self._positions - 1], np.int32))
        self._is_current = True

    def _positions_left(self) -> int:
        """Return for how many more tokens the model has positions, in the sequence with the fewest."""
        if self.model.parts.rotary:
            return int(np.iinfo(np.int32).max - self._positions.max())
        return self.model.context_length - max(map(len, self.windows))

    def _full(self) -> list[int]:
        """Return the sequences for which the model has no further position."""
        if self.model.parts.rotary:
            return []
        return [b for b, window in enumerate(self.windows) if len(window) == window.maxlen]

    def _advance(self, steps: Sequence[Sequence[int]]) -> None:
        """Add the tokens of each step to the windows."""
        for window, tokens in zip(self.windows, zip(*steps, strict=True), strict=True):
            window.extend(tokens)
        self._positions += len(steps)

    def _check(self, tokens: Sequence[int]) -> None:
        for token in map(operator.index, tokens):
            if not 0 <= token < self.model.vocab_size:
                raise ValueError(f"token: got the id {token}, expected 0 to {self.model.vocab_size - 1}")


def _powers_of_two(total: int, most: int) -> Iterator[int]:
    """Yield powers of two, at most `most`, whose sum is the total: few plans serve all numbers of steps."""
    while total:
        power = min(most, 1 << total.bit_length() - 1)
        yield power
        total -= power
