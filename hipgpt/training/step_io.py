"""The inputs and results of several steps, stored on the device, so that a step does not wait for the host."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from hipgpt.compute.catalogue import ADVANCE, BUILD_BATCH, RECORD_STEP
from hipgpt.compute.device import Device
from hipgpt.compute.plan import Plan
from hipgpt.compute.tensor import Arena, DType, Field, Tensor
from hipgpt.config.settings import TrainingConfig
from hipgpt.data.batches import Batches
from hipgpt.training.schedule import schedule

RESIDENT_BYTES = 1 << 30  # a split of at most this size is stored on a GPU whole
AHEAD_BYTES = 64 << 20  # limit of the windows that are prepared ahead


def steps_ahead(training: TrainingConfig, context_length: int) -> int:
    """Return how many steps the tables hold: log_every_steps, or fewer if their windows would exceed AHEAD_BYTES."""
    windows = training.accumulation_steps * training.batch_sequences
    step_bytes = windows * (context_length + 1) * DType.I32.size_bytes
    return max(1, min(training.log_every_steps, training.steps, AHEAD_BYTES // step_bytes))


class StepInputs:
    """Tables of inputs for `steps_ahead` steps. Counters on the device select the rows of a step.

    counters (4) i32: seed low and high, step, micro step. schedule: the rows that ADAMW reads.
    A GPU stores the tokens of a split of at most RESIDENT_BYTES whole, and builds batches from the offsets of windows.
    For a larger split, `corpus` holds the windows of the coming steps instead. So it does on a CPU, because the tokens
    are in its memory anyway.
    """

    def __init__(self, device: Device, batches: Batches, training: TrainingConfig, steps_ahead: int):
        self._device, self._batches, self._training, self._steps = device, batches, training, steps_ahead
        B, S, T = batches.sequences, batches.context_length, len(batches.tokens)
        rows = steps_ahead * training.accumulation_steps
        self._resident = not device.traits.shares_host_memory and T * DType.I32.size_bytes <= RESIDENT_BYTES
        integers = [
            Field("counters", (4,)),
            Field("window_starts", (rows, B)),
            Field("corpus", (T if self._resident else rows * B * (S + 1),)),
        ]
        self._integers = Arena(device, "inputs", [dataclasses.replace(field, dtype=DType.I32) for field in integers])
        self.counters = self._integers["counters"]
        self.schedule = Arena(device, "schedule", [Field("schedule", (steps_ahead, 3))])["schedule"]
        self._next, self._filled = 0, 0  # the step that the counters are at; the last step in the tables
        if self._resident:
            device.write(self._integers["corpus"], batches.tokens.windows(np.zeros(1, np.int64), T)[0])

    @property
    def given(self) -> list[Tensor]:
        return [self._integers.flat, self.schedule]

    def record(self, plan: Plan, tokens: Tensor, targets: Tensor) -> None:
        """Record the building of the tokens and targets, (B, S), of the micro-batch that the counters are at."""
        tables, steps = (self._integers["corpus"], self._integers["window_starts"]), self._training.accumulation_steps
        plan(BUILD_BATCH, tokens, targets, *tables, self.counters, accumulation_steps=steps)

    def record_advance(self, plan: Plan) -> None:
        """Record ADVANCE: the counters go to the next micro-batch. RECORD_STEP takes them to the next step."""
        plan(ADVANCE, self.counters)

    def prepare(self, step: int) -> None:
        """Fill the tables and set the counters for a step, from 1 on. Must be called before each step."""
        if step != self._next:
            self._device.write(self.counters, counters(self._training.seed, step, micro_step=0))
            self._filled = 0
        if step > self._filled:
            self._fill(step)
        self._next = step + 1

    def _fill(self, first: int) -> None:
        """Write the rows of `steps_ahead` steps from `first` on. The row of a step is its number modulo steps_ahead."""
        steps, A = self._steps, self._training.accumulation_steps
        at = {(first + i) % steps: first + i for i in range(steps)}
        micro_steps = [(at[row] - 1) * A + micro for row in range(steps) for micro in range(A)]
        self._device.write(self.schedule, np.stack([schedule(self._training, at[row]) for row in range(steps)]))
        if self._resident:
            starts = np.stack([self._batches.starts(micro_step) for micro_step in micro_steps])
        else:
            windows = np.stack([self._batches.batch(micro_step) for micro_step in micro_steps])
            self._device.write(self._integers["corpus"], windows.ravel())
            starts = np.arange(0, windows.size, windows.shape[2]).reshape(windows.shape[:2])
        self._device.write(self._integers["window_starts"], starts.astype(np.int32))
        self._filled = first + steps - 1


class StepHistory:
    """Loss and gradient norm of the last `steps` steps, stored on the device and read together."""

    def __init__(self, device: Device, steps: int):
        self._device, self._steps = device, steps
        self._history = Arena(device, "history", [Field("rows", (steps, 2))])["rows"]

    @property
    def given(self) -> list[Tensor]:
        return [self._history]

    def record(self, plan: Plan, loss: Tensor, norm: Tensor, counters: Tensor) -> None:
        """Record RECORD_STEP: store both figures in the row of the step, zero the loss, advance to the next step."""
        plan(RECORD_STEP, self._history, loss, counters, norm)

    @property
    def last(self) -> Tensor:
        """A row of the table. Reading it waits for all earlier launches."""
        return self._history.rows(0, 1)

    def read(self, first: int, last: int) -> NDArray[np.float32]:
        """Return the loss in nats per token and the gradient norm of steps first to last, (last - first + 1, 2) f32."""
        return self._device.read(self._history)[np.arange(first, last + 1) % self._steps]


def counters(seed: int, step: int, micro_step: int) -> NDArray[np.int32]:
    """Return the counters that ops read, (4) i32: seed low and high, step, micro step."""
    words = np.array([seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF, step, micro_step], np.uint32)
    return words.view(DType.I32.numpy)
