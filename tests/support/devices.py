"""The devices that tests of ops, gradients and causality run on."""

import contextlib
import dataclasses
from collections.abc import Iterator

import pytest

from hipgpt.base.kernel_constants import kernel_constants
from hipgpt.compute.backends import cpu, gpu
from hipgpt.compute.backends.null import NullDevice
from hipgpt.compute.backends.variants import find_variant
from hipgpt.compute.contract import Op
from hipgpt.compute.device import Device
from hipgpt.compute.tensor import DType
from support.calls import Case

# The backends that run these tests, by name: the dtypes that each has kernels for, and marks.
DEVICES = {
    "cpu": ((DType.F32, DType.BF16), ()),
    "hip": ((DType.F32, DType.BF16), pytest.mark.gpu),
    "cuda": ((DType.F32, DType.BF16), pytest.mark.gpu),
}

MIN_GEMM_ROWS = kernel_constants(cpu.CPU / "matmul.cpp")["MIN_GEMM_ROWS"]

every_device_in_every_dtype = pytest.mark.parametrize(
    ("device", "act"),
    [
        pytest.param(name, act, marks=marks, id=f"{name}-{act.label}")
        for name, (acts, marks) in DEVICES.items()
        for act in acts
    ],
    indirect=["device"],
)

on_a_hopper = pytest.mark.parametrize("device", [pytest.param("cuda", marks=pytest.mark.gpu)], indirect=True)


def skip_without(device: Device, op: Op) -> None:
    """Skip a test on a GPU that has no such op of several layers."""
    if op not in device.traits.workspaces:
        pytest.skip(f"{device.name} has no {op.name}")


def splits_f32(device: Device, case: Case) -> bool:
    """Return whether AMX's tiles compute the GEMMs of a call in f32, each number split into three bf16."""
    op, sizes = case.op, case.sizes
    if not isinstance(device, cpu.CpuDevice) or case.act is not DType.F32:
        return False
    is_forward = op.family == "matmul" and op.name.endswith("_forward")
    if op.name == "attention_decode" or (is_forward and sizes["N"] < MIN_GEMM_ROWS):
        return False  # vectors multiply a few rows
    return "CPU_AMX" in find_variant(op, cpu.arch(), case.act, sizes).macros


def null_gpu(arch: str = "sm_90a", multiprocessors: int = 132, without: tuple[Op, ...] = ()) -> NullDevice:
    """Return a device that records what a GPU would run, by default an H100, or one that lacks some fused ops."""
    workspaces = gpu.fused_op_workspaces(arch, multiprocessors)
    kept = {op: workspace for op, workspace in workspaces.items() if op not in without}
    return NullDevice(gpu.traits((DType.BF16, DType.F32), kept))


@contextlib.contextmanager
def without_fused_ops(device: Device) -> Iterator[None]:
    """Take the ops of several layers from a device meanwhile."""
    before = device.traits
    device.traits = dataclasses.replace(before, workspaces={})
    try:
        yield
    finally:
        device.traits = before
