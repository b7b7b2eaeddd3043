"""AdamW over arenas, clipping by global norm, and the learning-rate schedule."""

import math

import numpy as np

from hipgpt.backends.device import Device
from hipgpt.config import TrainingConfig
from hipgpt.ops import ADAMW, GRADIENT_NORM, RECORD_STEP, SUM_OF_SQUARES
from hipgpt.plan import Plan
from hipgpt.tensor import Arena, DType, Field, Tensor

NORM_PARTS = 256


def learning_rate(training: TrainingConfig, step: int) -> float:
    """Return the learning rate of a step, which counts from 1 to training.steps.

    Linear warm-up to the peak, then half a cosine down to the floor. Loshchilov & Hutter 2017, arXiv:1608.03983.
    """
    warmup_steps = round(training.warmup_fraction * training.steps)
    if step <= warmup_steps:
        return training.learning_rate_peak * step / warmup_steps
    progress = (step - warmup_steps) / (training.steps - warmup_steps)
    floor = training.learning_rate_floor_fraction
    return training.learning_rate_peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))


def schedule(training: TrainingConfig, step: int) -> np.ndarray:
    """Return a step's row of ADAMW's schedule: learning rate and both bias corrections, (3) f32. Steps count from 1."""
    corrections = (1 / (1 - beta**step) for beta in (training.beta1, training.beta2))
    return np.array([learning_rate(training, step), *corrections], np.float32)


class AdamW:
    """Both moments of a weights arena, and the ops of one update."""

    def __init__(self, device: Device, weights: Arena, training: TrainingConfig):
        self.weights, self.training = weights, training
        self.first_moment = Arena(device, "first_moment", weights.fields)
        self.second_moment = Arena(device, "second_moment", weights.fields)
        self._scratch = Arena(device, "optimizer", [Field("norm", (1,)), Field("partials", (NORM_PARTS,))])
        self.norm = self._scratch["norm"]

    @property
    def given(self) -> list[Tensor]:
        """The tensors that hold values before an update."""
        return [self.weights.flat, self.first_moment.flat, self.second_moment.flat]

    def update(
        self, plan: Plan, gradients: Arena, schedule: Tensor, counters: Tensor, copy: Arena | None = None
    ) -> None:
        """Record: global norm, then AdamW; gradients are zero afterwards.

        schedule (K, 3): rows as `schedule` returns them, of which `counters` choose; copy: the weights' bf16 copy, to
        be renewed.
        """
        training = self.training
        plan(SUM_OF_SQUARES, self._scratch["partials"], gradients.flat)
        plan(GRADIENT_NORM, self.norm, self._scratch["partials"])
        settings = {"beta1": training.beta1, "beta2": training.beta2, "epsilon": training.epsilon}
        settings |= {"weight_decay": training.weight_decay, "clip_norm": training.clip_norm}
        arenas = self.weights, self.first_moment, self.second_moment, gradients
        tensors = [arena.flat for arena in arenas] + [copy.flat if copy else None]
        plan(ADAMW, *tensors, self.norm, schedule, counters, **settings, decayed=self._decayed_elements)

    @property
    def _decayed_elements(self) -> int:
        undecayed = next(field for field in self.weights.fields if not field.decay)
        return self.weights.offsets[undecayed.name] // DType.F32.size_bytes


class StepHistory:
    """Loss and gradient norm of the last `steps` steps, kept on the device and read all at once."""

    def __init__(self, device: Device, steps: int):
        self._device, self._steps = device, steps
        self._history = Arena(device, "history", [Field("rows", (steps, 2))])["rows"]

    @property
    def given(self) -> list[Tensor]:
        return [self._history]

    def record(self, plan: Plan, loss: Tensor, norm: Tensor, counters: Tensor) -> None:
        """Record: both figures go to the step's row, loss is zero then, and the counters stand at the next step."""
        plan(RECORD_STEP, self._history, loss, counters, norm)

    @property
    def last(self) -> Tensor:
        """A row of the table: reading it waits for all launches before."""
        return self._history.rows(0, 1)

    def read(self, first: int, last: int) -> np.ndarray:
        """Return (last - first + 1, 2) f32: loss in nats per token and gradient norm of the steps first to last."""
        return self._device.read(self._history)[np.arange(first, last + 1) % self._steps]


def counters(seed: int, step: int, micro_step: int) -> np.ndarray:
    """Return the counters that ops read: seed low and high, step, micro step; (4) i32."""
    words = np.array([seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF, step, micro_step], np.uint32)
    return words.view(DType.I32.numpy)
