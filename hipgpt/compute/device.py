"""The Device protocol: memory, transfers and launches. All that the rest of HipGPT knows of a backend."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from hipgpt.base.errors import UserError
from hipgpt.compute.launch import Launch
from hipgpt.compute.tensor import DType, Tensor


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

    def prepare(self, launches: Sequence[Launch]) -> Callable[[], None]:
        """Compile and bind launches; return the function that replays them in order."""


def check_transfer(tensor: Tensor, values: np.ndarray) -> None:
    """Raise ValueError unless values fit the tensor exactly."""
    if values.shape != tensor.shape or values.dtype != tensor.dtype.numpy:
        raise ValueError(
            f"{tensor.name}: got {values.dtype} {values.shape}, expected {tensor.dtype.numpy} {tensor.shape}"
        )


class DeviceAbsent(UserError):
    """This machine has no such device, or no driver or Python package to reach it."""
