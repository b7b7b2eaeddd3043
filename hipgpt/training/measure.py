"""Measure how long a step of a run takes on the device at hand."""

import dataclasses
import time

import numpy as np

from hipgpt.compute.device import Device
from hipgpt.config.settings import ModelConfig, TrainingConfig
from hipgpt.data.tokens import Tokens
from hipgpt.gpt.precision import on_device
from hipgpt.training.step import trainer_of

WARM_STEPS, MEASURED_STEPS = 3, 20
WINDOWS = 64  # of random tokens: what they are does not change the time of a step


def seconds_per_step(model: ModelConfig, training: TrainingConfig, device: Device) -> float:
    """Return the mean time of MEASURED_STEPS steps, after WARM_STEPS others. Kernels are compiled before."""
    random = np.random.default_rng(0)
    tokens = random.integers(0, model.vocab_size, WINDOWS * (model.context_length + 1)).astype(np.uint32)
    steps = max(training.steps, WARM_STEPS + MEASURED_STEPS)
    long_enough = dataclasses.replace(on_device(training, device), steps=steps)
    trainer = trainer_of(model, long_enough, device, Tokens([tokens]))
    trainer.compile()
    trainer.initialize()
    trainer.prepare()
    for step in range(1, WARM_STEPS + 1):
        trainer.step(step)
    device.read(trainer.history.last)  # waits
    started = time.perf_counter()
    for step in range(WARM_STEPS + 1, WARM_STEPS + MEASURED_STEPS + 1):
        trainer.step(step)
    device.read(trainer.history.last)
    return (time.perf_counter() - started) / MEASURED_STEPS
