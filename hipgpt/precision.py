"""Mixed precision: what `training.precision` means on a device, and copies of weights in another dtype."""

import dataclasses

from hipgpt.backends.device import Device
from hipgpt.config import ModelConfig, TrainingConfig
from hipgpt.model import Weights
from hipgpt.ops import ROUND_WEIGHTS
from hipgpt.plan import Plan
from hipgpt.tensor import Arena, DType

PRECISIONS = {"float32": DType.F32, "bfloat16": DType.BF16}


def on_device(training: TrainingConfig, device: Device) -> TrainingConfig:
    """Return the settings with a precision of `auto` replaced by what the device is fastest with."""
    if training.precision != "auto":
        return training
    fastest = next(name for name, dtype in PRECISIONS.items() if dtype is device.act_dtypes[0])
    return dataclasses.replace(training, precision=fastest)


class RoundedCopy:
    """`arena`: a copy of weights in the dtype `act`, as they were at the last renew()."""

    def __init__(self, device: Device, weights: Arena, act: DType):
        fields = [dataclasses.replace(field, dtype=act) for field in weights.fields]
        self.arena = Arena(device, "copy", fields)
        self._plan = Plan(device, "copy", [weights.flat], act)
        self._plan(ROUND_WEIGHTS, self.arena.flat, weights.flat)

    def renew(self) -> None:
        self._plan.run()


def fastest_weights(device: Device, model: ModelConfig, weights: Weights) -> Weights:
    """Return weights in the dtype that the device is fastest with: these, or a copy that is made once."""
    if (act := device.act_dtypes[0]) is weights.arena.flat.dtype:
        return weights
    copy = RoundedCopy(device, weights.arena, act)
    copy.renew()
    return Weights(copy.arena, model)
