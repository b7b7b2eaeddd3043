"""Mixed precision: the dtype that `training.precision` selects on a device, and copies of weights in that dtype."""

import dataclasses

from hipgpt.base.errors import UserError
from hipgpt.compute.catalogue import ROUND_WEIGHTS
from hipgpt.compute.device import Device
from hipgpt.compute.plan import Plan
from hipgpt.compute.tensor import Arena, DType
from hipgpt.config.settings import ModelConfig, TrainingConfig
from hipgpt.gpt.parameters import ParameterTensors

PRECISIONS = {"float32": DType.F32, "bfloat16": DType.BF16}


def act_of(precision: str, device: Device) -> DType:
    """Return the dtype of activations that a precision of the config selects on a device."""
    return device.traits.act_dtypes[0] if precision == "auto" else PRECISIONS[precision]


def on_device(training: TrainingConfig, device: Device) -> TrainingConfig:
    """Return the settings with the precision `auto` replaced by the device's fastest one.

    Raises UserError if gradients are to travel in bfloat16, and activations are not in it.
    """
    act = act_of(training.precision, device)
    if act is DType.F32 and training.reduce_precision != "float32":
        raise UserError(
            f"training.reduce_precision: got {training.reduce_precision}, expected float32, because training.precision "
            f"is {training.precision}, which means float32 on {device.name}"
        )
    return dataclasses.replace(training, precision=next(name for name, dtype in PRECISIONS.items() if dtype is act))


class RoundedCopy:
    """A copy of weights in the dtype `act`. `arena` holds the weights as they were at the last call of renew().

    plan: the one that renew() runs.
    """

    def __init__(self, device: Device, weights: Arena, act: DType):
        fields = [dataclasses.replace(field, dtype=act) for field in weights.fields]
        self.arena = Arena(device, "copy", fields)
        self.plan = Plan(device, "copy", [weights.flat], act)
        self.plan(ROUND_WEIGHTS, self.arena.flat, weights.flat)

    def renew(self) -> None:
        """Round the current weights into the copy."""
        self.plan.run()


def weights_in(precision: str, device: Device, model: ModelConfig, weights: ParameterTensors) -> ParameterTensors:
    """Return the weights in the dtype of a precision: these, or a rounded copy of them."""
    if (act := act_of(precision, device)) is weights.arena.flat.dtype:
        return weights
    copy = RoundedCopy(device, weights.arena, act)
    copy.renew()
    return ParameterTensors(copy.arena, model)
