"""Read the beginnings of sequences in few passes, instead of token by token."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from hipgpt.compute.device import Device
from hipgpt.compute.plan import Plan
from hipgpt.compute.tensor import Arena, DType, Field
from hipgpt.config.settings import ModelConfig
from hipgpt.gpt.activations import activations
from hipgpt.gpt.model import Network
from hipgpt.gpt.parameters import ParameterTensors

PASS_TOKENS = 2048  # of all sequences together, unless one sequence has more; a limit of memory
LEAST_TOKENS = 16  # of a sequence: shorter ones are padded, so that there are few different plans
Beginnings = Mapping[int, Sequence[int]]  # tokens by the sequence of the cache that they begin


class Prefill:
    """Passes that put the keys and values of tokens into a cache.

    A plan has a fixed shape, so there is one for each power of two of sequences and of tokens. Padding comes after the
    tokens, where attention does not see it, and the cache's rows of it are overwritten before they are read.
    """

    def __init__(self, device: Device, model: ModelConfig, weights: ParameterTensors, cache: Arena):
        self._device, self._model, self._weights, self._cache = device, model, weights, cache
        self._passes: dict[tuple[int, int], _Pass] = {}

    def __call__(self, beginnings: Beginnings) -> None:
        """Make the tokens the beginnings of their sequences. Each has 1 to T of them."""
        for shape, group in _groups(beginnings, self._model.context_length):
            self._pass(shape)(group)

    def plan(self, tokens: int) -> Plan:
        """Return the plan that reads the beginning of one sequence of so many tokens."""
        return self._pass((1, _padded_length(tokens, self._model.context_length))).plan

    def _pass(self, shape: tuple[int, int]) -> "_Pass":
        """Return the pass of so many sequences of so many tokens. Its memory stays allocated."""
        if shape not in self._passes:
            self._passes[shape] = _Pass(self._device, self._model, self._weights, self._cache, shape)
        return self._passes[shape]


class _Pass:
    """The pass of one shape (B, S)."""

    def __init__(
        self, device: Device, model: ModelConfig, weights: ParameterTensors, cache: Arena, shape: tuple[int, int]
    ):
        self._device, self._shape, act = device, shape, weights.arena.flat.dtype
        shapes = {"tokens": shape, "starts": shape[:1], "slots": shape[:1]}
        inputs = Arena(device, "prefill", [Field(name, size, DType.I32) for name, size in shapes.items()])
        self._tokens, self._slots = inputs["tokens"], inputs["slots"]
        saved = Arena(device, "activations", activations(model, *shape, act, logit_rows=1))
        self.plan = Plan(device, "prefill", [weights.arena.flat, inputs.flat, cache.flat], act)
        Network(model, weights, saved, inputs["tokens"], inputs["starts"], cache, self._slots).forward(self.plan)

    def __call__(self, beginnings: Beginnings) -> None:
        tokens, slots = np.zeros(self._shape, np.int32), np.full(self._shape[0], -1, np.int32)
        for row, (slot, beginning) in enumerate(beginnings.items()):
            tokens[row, : len(beginning)], slots[row] = beginning, slot
        self._device.write(self._tokens, tokens)
        self._device.write(self._slots, slots)
        self.plan.run()


def _padded_length(tokens: int, context_length: int) -> int:
    """Return the tokens of a sequence in the pass that reads so many of them."""
    return min(context_length, max(LEAST_TOKENS, _power_of_two(tokens)))


def _groups(beginnings: Beginnings, context_length: int) -> Iterator[tuple[tuple[int, int], Beginnings]]:
    """Yield the shape of a pass and the beginnings that it reads."""
    by_length: dict[int, list[int]] = {}
    for slot, tokens in beginnings.items():
        by_length.setdefault(_padded_length(len(tokens), context_length), []).append(slot)
    for length, slots in by_length.items():
        most = max(1, _power_of_two(PASS_TOKENS // length + 1) // 2)  # a group is padded to a power of two
        for first in range(0, len(slots), most):
            group = slots[first : first + most]
            yield (_power_of_two(len(group)), length), {slot: beginnings[slot] for slot in group}


def _power_of_two(number: int) -> int:
    """Return the least power of two that is not smaller."""
    return 1 << (number - 1).bit_length()
