"""The Device protocol: memory, transfers and launches. All that the rest of HipGPT knows of a backend."""

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from hipgpt.config import DEVICES
from hipgpt.errors import UserError
from hipgpt.tensor import Tensor

if TYPE_CHECKING:
    from hipgpt.plan import Launch


class Device(Protocol):
    """One processor with its memory. `backend` names the code that computes, `name` is for people."""

    backend: str
    name: str

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


def open_device(name: str, threads: int | None = None) -> Device:
    """Open a device by its name in config.yaml: `cpu`, `null` (counts, computes nothing), or `auto`, the best present.

    threads: how many the CPU uses; by default as many as this process may run on.
    Raises UserError on another name.
    """
    if name in ("auto", "cpu"):
        from hipgpt.backends.cpu import CpuDevice

        return CpuDevice(threads or available_cores())
    if name == "null":
        from hipgpt.backends.null import NullDevice

        return NullDevice()
    raise UserError(f"device: got {name!r}, expected one of {', '.join(DEVICES)}")


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
