"""Losses of windows of tokens under a model."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hipgpt.compute.device import Device
from hipgpt.compute.plan import Plan
from hipgpt.compute.tensor import Arena, DType, Field
from hipgpt.config.settings import ModelConfig
from hipgpt.gpt.activations import activations
from hipgpt.gpt.blocking import logit_rows
from hipgpt.gpt.model import Network
from hipgpt.gpt.parameters import ParameterTensors


@dataclass(frozen=True)
class Scores:
    """nats (n, S) f32: the loss of each target token; ranks (n, S) i32: its rank, 0 for the model's first choice."""

    nats: NDArray[np.float32]
    ranks: NDArray[np.int32]


class Scorer:
    """Scores windows of S + 1 tokens: the model reads the first S tokens and predicts the last S. Dropout is off.

    sequences: the number of windows of a pass; plan: the pass; saved: an Arena of `activations` for that many, if
    training shares one.
    """

    def __init__(
        self,
        device: Device,
        model: ModelConfig,
        weights: ParameterTensors,
        sequences: int,
        saved: Arena | None = None,
    ):
        B, S, act = sequences, model.context_length, weights.arena.flat.dtype
        self.sequences, self._device, self._vocab_size = sequences, device, model.vocab_size
        if saved is None:
            rows = logit_rows(model, B * S, device.traits.cache_bytes)
            saved = Arena(device, "activations", activations(model, B, S, act, rows))
        shapes = {"tokens": (B, S), "targets": (B * S,), "starts": (B,), "ranks": (B * S,)}
        self._inputs = Arena(device, "scored", [Field(name, shape, DType.I32) for name, shape in shapes.items()])
        self._losses = saved["losses"]
        given = [weights.arena.flat, *(self._inputs[name] for name in ("tokens", "targets", "starts"))]
        self.plan = Plan(device, "scoring", given, act)
        network = Network(model, weights, saved, self._inputs["tokens"], self._inputs["starts"])
        network.forward(self.plan)
        network.losses(self.plan, self._inputs["targets"], self._inputs["ranks"])

    def __call__(self, windows: NDArray[np.int32]) -> Scores:
        """Return the scores of windows (n, S + 1) i32, 1 <= n <= `sequences`.

        Raises ValueError if an id is not in the vocabulary.
        """
        if windows.min() < 0 or windows.max() >= self._vocab_size:
            raise ValueError(
                f"windows: got ids {windows.min()} to {windows.max()}, expected 0 to {self._vocab_size - 1}"
            )
        count = len(windows)
        rows = windows[np.minimum(np.arange(self.sequences), count - 1)]
        self._device.write(self._inputs["tokens"], np.ascontiguousarray(rows[:, :-1]))
        self._device.write(self._inputs["targets"], rows[:, 1:].ravel())
        self.plan.run()
        nats, ranks = (self._device.read(tensor) for tensor in (self._losses, self._inputs["ranks"]))
        return Scores(nats.reshape(self.sequences, -1)[:count], ranks.reshape(self.sequences, -1)[:count])
