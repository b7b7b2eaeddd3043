"""Open a device by its name."""

import os

from hipgpt.base.errors import UserError
from hipgpt.compute.device import Device, DeviceAbsent

GPUS = ("hip", "cuda")


def open_device(name: str, threads: int | None = None) -> Device:
    """Open a device by its name: `cpu`, `hip`, `cuda`, `cuda:1`, or `auto`.

    auto: the first GPU that can be opened, otherwise the CPU. threads: the number of threads of the CPU device, by
    default one for each core that this process may use. Raises UserError on another name, DeviceAbsent if this machine
    has no such device.
    """
    backend, _, index = name.partition(":")
    if name == "auto":
        return _first_gpu() or open_device("cpu", threads)
    if name == "cpu":
        from hipgpt.compute.backends.cpu import CpuDevice

        return CpuDevice(threads or available_cores())
    if backend in GPUS and (index.isdecimal() or name == backend):
        return _open_gpu(backend, int(index or 0))
    raise UserError(f"device: got {name!r}, expected auto, cpu, hip, cuda, or one of several GPUs as hip:1 or cuda:1")


def _open_gpu(backend: str, index: int) -> Device:
    from hipgpt.compute.backends.gpu import GpuDevice

    if backend == "hip":
        from hipgpt.compute.backends.hip import HipDriver

        return GpuDevice(HipDriver(index))
    from hipgpt.compute.backends.cuda import CudaDriver

    return GpuDevice(CudaDriver(index))


def _first_gpu() -> Device | None:
    for backend in GPUS:
        try:
            return _open_gpu(backend, 0)
        except DeviceAbsent:
            continue
    return None


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
