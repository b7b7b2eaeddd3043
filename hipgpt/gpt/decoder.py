"""One sequence, continued token by token with cached keys and values."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hipgpt.compute.catalogue import GREEDY_TOKEN
from hipgpt.compute.device import Device
from hipgpt.compute.plan import Plan
from hipgpt.compute.tensor import Arena, DType, Field
from hipgpt.config.settings import ModelConfig
from hipgpt.gpt.activations import activations, kv_cache
from hipgpt.gpt.model import Network
from hipgpt.gpt.parameters import ParameterTensors


class Decoder:
    """A sequence that is continued token by token. `window` holds the tokens that the cache covers.

    With rotary positions a full cache slides: a new key takes the place of the oldest one, because only distances
    matter. Each prediction sees the last T tokens, T being the context length. A model with learned positions has none
    beyond T, so decoding starts again from the last T // 2 tokens. From then on each prediction sees between T // 2 and
    T tokens, and each token costs two passes on average. Activations, cache and logits have the dtype of the weights.
    """

    def __init__(self, device: Device, model: ModelConfig, weights: ParameterTensors):
        self.device, self.model, act = device, model, weights.arena.flat.dtype
        self.window: list[int] = []
        self._position = 0  # of the next token
        # one field, so that each token costs one transfer to the device
        inputs = Arena(device, "inputs", [Field("token_and_position", (2,), DType.I32)])
        cache = Arena(device, "kv_cache", kv_cache(model, sequences=1, act=act))
        saved = Arena(device, "activations", activations(model, 1, 1, act))
        self._token_and_position, self._logits = inputs["token_and_position"], saved["logits"]
        token, position = self._token_and_position.rows(0, 1).view(1, 1), self._token_and_position.rows(1, 2)
        given = [weights.arena.flat, inputs.flat, cache.flat]
        self._plan = Plan(device, "decode", given, act)
        self._greedy_plan = Plan(device, "greedy decode", [*given, self._logits], act)
        self._greedy_plan(GREEDY_TOKEN, token.view(1), position, self._logits)
        network = Network(model, weights, saved, token, position, cache=cache)
        for plan in (self._plan, self._greedy_plan):
            network.forward(plan)
            network.logits(plan)

    def restart(self, tokens: Sequence[int]) -> None:
        """Forget the sequence and read the last T of `tokens`."""
        self.window, self._position = [], 0
        for token in list(tokens)[-self.model.context_length :]:
            self.append(token)

    def append(self, token: int) -> None:
        """Read one more token. Raises ValueError if the vocabulary lacks it."""
        if not 0 <= token < self.model.vocab_size:
            raise ValueError(f"token: got the id {token}, expected 0 to {self.model.vocab_size - 1}")
        if self._must_restart():
            remaining = self.model.context_length // 2
            self.restart([*self.window, token][-remaining:])
            return
        self.device.write(self._token_and_position, np.array([token, self._position], np.int32))
        self._plan.run()
        self._advance(token)

    def append_greedy(self) -> int:
        """Read the token with the largest logit next, and return it. Ties go to the lower id.

        The device chooses the token, so the host waits for one number instead of reading all logits.
        """
        if self._must_restart():
            self.append(int(self.logits().argmax()))
        else:
            self._greedy_plan.run()
            self._advance(int(self.device.read(self._token_and_position)[0]))
        return self.window[-1]

    def _must_restart(self) -> bool:
        return len(self.window) == self.model.context_length and not self.model.parts.rotary

    def _advance(self, token: int) -> None:
        self.window = [*self.window[-(self.model.context_length - 1) :], token]
        self._position += 1

    def logits(self) -> NDArray[np.float32]:
        """Return (V,) f32: the logits of the token after those read so far."""
        logits: NDArray[np.float32] = self.device.read(self._logits)[0].astype(np.float32, copy=False)
        return logits
