"""An optimizer alone: weights and gradients of given fields, and its update as a plan."""

import dataclasses

import numpy as np

from hipgpt.compute.plan import Plan
from hipgpt.compute.tensor import Arena, DType, Field
from hipgpt.training.muon import Muon
from hipgpt.training.optimizer import AdamW
from hipgpt.training.schedule import schedule
from support.training_settings import training_config

GIVEN = {"learning_rate_peak": 3e-3, "learning_rate_floor_fraction": 0.1, "warmup_fraction": 0.2, "beta1": 0.9,
         "beta2": 0.95, "epsilon": 1e-8, "weight_decay": 0.1, "clip_norm": 1.0, "steps": 10}  # fmt: skip
ADAMW = training_config(**GIVEN)
MUON = dataclasses.replace(ADAMW, optimizer="muon", muon_learning_rate_peak=2e-2)


class Optimizing:
    """An optimizer with normal weights and gradients of fields on a device, its update recorded."""

    def __init__(self, device, fields, settings=ADAMW):
        self.device, self.settings, random = device, settings, np.random.default_rng(1)
        self.weights, self.gradients = Arena(device, "weights", fields), Arena(device, "gradients", fields)
        if settings.optimizer == "muon":
            self.optimizer = Muon(device, self.weights, settings, DType.F32)
        else:
            self.optimizer = AdamW(device, self.weights, settings)
        self.schedule = Arena(device, "schedule", [Field("schedule", (1, 3))])["schedule"]
        counters = Arena(device, "counters", [Field("counters", (4,), DType.I32)]).flat.rows(0, 4)
        self.plan = Plan(device, "update", [*self.optimizer.given, self.gradients.flat, self.schedule, counters])
        self.optimizer.update(self.plan, self.gradients, self.schedule, counters)
        for field in fields:
            device.write(self.weights[field.name], random.normal(size=field.shape).astype(np.float32))

    def step(self, step, gradients):
        for name, values in gradients.items():
            self.device.write(self.gradients[name], values)
        self.device.write(self.schedule, schedule(self.settings, step)[None])
        self.plan.run()

    def read(self, arena):
        return {field.name: self.device.read(arena[field.name]) for field in arena.fields}


def random_gradients(fields, step, scale=1.0):
    random = np.random.default_rng([7, step])
    return {field.name: (scale * random.normal(size=field.shape)).astype(np.float32) for field in fields}
