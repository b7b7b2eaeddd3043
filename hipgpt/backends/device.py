"""The Device protocol: memory, transfers and launches. All that the rest of HipGPT knows of a backend."""

import ctypes
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from hipgpt.errors import UserError
from hipgpt.tensor import DType, Tensor

if TYPE_CHECKING:
    from hipgpt.plan import Launch

GPUS = ("hip", "cuda")
SCALARS = {"f32": ctypes.c_float, "i32": ctypes.c_int32}  # how the catalogue's scalars reach a kernel


class Device(Protocol):
    """One processor with its memory. `backend` names the code that computes; `name` and `compiler` are for people.

    act_dtypes: what it has kernels for as the dtype of activations, the fastest first.
    """

    backend: str
    name: str
    compiler: str
    act_dtypes: tuple[DType, ...]

    def allocate(self, size_bytes: int) -> tuple[int, Any]:
        """Return (address, owner) of zeroed memory, aligned to at least 64 bytes; freed with its owner."""

    def write(self, tensor: Tensor, values: np.ndarray) -> None:
        """Copy host values to a tensor. Raises ValueError if shape or dtype differ."""

    def read(self, tensor: Tensor) -> np.ndarray:
        """Return a host copy of a tensor, after all launches before it."""

    def prepare(self, launches: Sequence["Launch"]) -> Callable[[], None]:
        """Compile and bind launches; return the function that replays them in order."""


def check_transfer(tensor: Tensor, values: np.ndarray) -> None:
    """Raise ValueError unless values fit the tensor exactly."""
    if values.shape != tensor.shape or values.dtype != tensor.dtype.numpy:
        raise ValueError(
            f"{tensor.name}: got {values.dtype} {values.shape}, expected {tensor.dtype.numpy} {tensor.shape}"
        )


class DeviceAbsent(UserError):
    """This machine has no such device, or no driver or Python package to reach it."""


def open_device(name: str, threads: int | None = None) -> Device:
    """Open a device by its name: `cpu`, `hip`, `cuda`, `cuda:1`, `null` (computes nothing), or `auto`.

    auto: the first GPU that answers a call, else the CPU. threads: how many the CPU uses; by default as many as this
    process may run on. Raises UserError on another name, DeviceAbsent if there is no such device here.
    """
    backend, _, index = name.partition(":")
    if name == "auto":
        return _first_gpu() or open_device("cpu", threads)
    if name == "cpu":
        from hipgpt.backends.cpu import CpuDevice

        return CpuDevice(threads or available_cores())
    if name == "null":
        from hipgpt.backends.null import NullDevice

        return NullDevice()
    if backend in GPUS and (index.isdecimal() or name == backend):
        return _open_gpu(backend, int(index or 0))
    raise UserError(f"device: got {name!r}, expected auto, cpu, hip, cuda, or one of several GPUs as hip:1 or cuda:1")


def _open_gpu(backend: str, index: int) -> Device:
    from hipgpt.backends.gpu import GpuDevice

    if backend == "hip":
        from hipgpt.backends.hip import HipDriver

        return GpuDevice(HipDriver(index))
    from hipgpt.backends.cuda import CudaDriver

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


def physical_bytes() -> int:
    """Return the size of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
