"""The tolerance between the losses of a GPU and of the CPU: a few times the effect of roundings, which is measured.

A kernel is off by gamma of its longest sum at most, in bf16 by the rounding of what it stores: test_ops.py. The CPU
trains with weights as far off at every step, with random signs; an activation's roundings in a pass add to those of
weights.
"""

from collections.abc import Callable

import numpy as np

from hipgpt.compute.tensor import DType
from hipgpt.training.step import Trainer
from support.rounding import accumulated

SEEDS, TIMES = range(3), 4


def losses(trainer: Trainer, take_step: Callable[[int], None] | None = None) -> np.ndarray:
    """Return the losses (steps) of a trainer from its beginning; take_step: what to call for each step, if not its own.

    Its log_every_steps must equal its steps, because the history holds that many.
    """
    trainer.initialize()
    steps = trainer.training.steps
    for step in range(1, steps + 1):
        (take_step or trainer.step)(step)
    return trainer.history.read(1, steps)[:, 0]


def losses_if_moved(trainer: Trainer, size: float, seed: int) -> np.ndarray:
    """Return the losses if every weight is off by the relative error `size` in every step. Errors are not inherited."""
    device, flat, random = trainer.device, trainer.weights.flat, np.random.default_rng(seed)

    def take_step(step: int) -> None:
        weights = device.read(flat)
        moved = (weights * (1 + size * random.choice([-1.0, 1.0], weights.shape))).astype(np.float32)
        device.write(flat, moved)
        trainer.step(step)
        device.write(flat, weights + (device.read(flat) - moved))

    return losses(trainer, take_step)


def tolerance(cpu_trainer: Callable[[], Trainer], reference: np.ndarray, act: DType) -> np.ndarray:
    """Return how much the loss of each step may differ from the CPU's. cpu_trainer: makes a new trainer."""
    model, training = cpu_trainer().model, cpu_trainer().training
    terms = max(model.vocab_size, training.batch_sequences * model.context_length)
    size = accumulated(terms) if act is DType.F32 else act.unit_roundoff
    moved = [np.abs(losses_if_moved(cpu_trainer(), size, seed) - reference) for seed in SEEDS]
    return TIMES * np.maximum.accumulate(np.max(moved, axis=0)) + TIMES * np.spacing(reference)
