"""The devices that tests of ops, gradients and causality run on."""

import contextlib
import dataclasses
from collections.abc import Iterator

import pytest

from hipgpt.compute.device import Device
from hipgpt.compute.tensor import DType

# The backends that run these tests, by name: the dtypes that each has kernels for, and marks.
DEVICES = {
    "cpu": ((DType.F32, DType.BF16), ()),
    "hip": ((DType.F32, DType.BF16), pytest.mark.gpu),
    "cuda": ((DType.F32, DType.BF16), pytest.mark.gpu),
}

every_device_in_every_dtype = pytest.mark.parametrize(
    ("device", "act"),
    [
        pytest.param(name, act, marks=marks, id=f"{name}-{act.label}")
        for name, (acts, marks) in DEVICES.items()
        for act in acts
    ],
    indirect=["device"],
)


@contextlib.contextmanager
def without_fused_ops(device: Device) -> Iterator[None]:
    """Take the ops of several layers from a device meanwhile."""
    before = device.traits
    device.traits = dataclasses.replace(before, workspaces={})
    try:
        yield
    finally:
        device.traits = before
