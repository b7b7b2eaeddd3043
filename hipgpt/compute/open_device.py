"""Open a device by its name."""

import contextlib
import os

from hipgpt.base.errors import UserError
from hipgpt.compute.device import Device, DeviceAbsent
from hipgpt.compute.process_group import ProcessGroup

GPUS = ("hip", "cuda")


def open_device(
    name: str, threads: int | None = None, group: ProcessGroup | None = None, local_rank: int = 0
) -> Device:
    """Open a device by its name: `cpu`, `hip`, `cuda`, `cuda:1`, or `auto`.

    auto: the first GPU that can be opened, otherwise the CPU. threads: the number of threads of the CPU device, by
    default one for each core that this process may use. group: the processes that train one model, of which this is
    one; it takes the GPU number local_rank. Raises UserError on another name, DeviceAbsent if this machine has no such
    device.
    """
    backend, _, index = name.partition(":")
    if name == "auto":
        return _first_gpu(group, local_rank) or open_device("cpu", threads, group)
    several = group is not None and group.size > 1
    if name == "cpu":
        from hipgpt.compute.backends.cpu import CpuDevice

        return CpuDevice(threads or available_cores(), group)
    if backend in GPUS and (index.isdecimal() or name == backend):
        # Slurm may show each rank only the GPU that it gives it
        own = 0 if several and _count_gpus(backend) == 1 else local_rank
        return _open_gpu(backend, int(index or own), group)
    raise UserError(f"device: got {name!r}, expected auto, cpu, hip, cuda, or one of several GPUs as hip:1 or cuda:1")


def _open_gpu(backend: str, index: int, group: ProcessGroup | None) -> Device:
    from hipgpt.compute.backends.driver import Driver
    from hipgpt.compute.backends.gpu import GpuDevice

    driver: Driver
    if backend == "hip":
        from hipgpt.compute.backends.hip import HipDriver

        driver = HipDriver(index)
    else:
        from hipgpt.compute.backends.cuda import CudaDriver

        driver = CudaDriver(index)
    if group is None or group.size == 1:
        return GpuDevice(driver)
    from hipgpt.compute.backends.nccl import NcclCommunicator

    return GpuDevice(driver, communicator=NcclCommunicator(driver, group))


def _first_gpu(group: ProcessGroup | None, local_rank: int) -> Device | None:
    """Return a GPU of the first kind that this machine has. Ranks that share a machine take the same kind."""
    for backend in GPUS:
        with contextlib.suppress(DeviceAbsent):
            return open_device(backend, None, group, local_rank)
    return None


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def count_devices(name: str) -> int:
    """Return how many devices of a name as in `open_device` this machine has: 1 unless it names all GPUs."""
    for backend in GPUS if name == "auto" else [name]:
        with contextlib.suppress(DeviceAbsent):
            if backend in GPUS and (count := _count_gpus(backend)):
                return count
    return 1


def _count_gpus(backend: str) -> int:
    if backend == "hip":
        from hipgpt.compute.backends import hip

        return hip.device_count()
    from hipgpt.compute.backends import cuda

    return cuda.device_count()
