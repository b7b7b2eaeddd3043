"""The Device protocol: memory, transfers and launches. All that the rest of HipGPT knows of a backend."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hipgpt.base.errors import UserError
from hipgpt.compute.contract import Op
from hipgpt.compute.launch import Launch
from hipgpt.compute.tensor import DType, Tensor

Workspace = Callable[[Mapping[str, int], DType], int]  # elements for a call's sizes and its activations' dtype


@dataclass(frozen=True)
class Traits:
    """How a device computes, as far as those who record plans must know.

    act_dtypes: dtypes of activations that it has kernels for, the fastest first.
    cache_bytes: as much of a pass's activations as its caches hold; None if larger batches are never slower.
    shares_host_memory: its tensors lie in the host's memory, so that a transfer is a copy.
    workspaces: ops of the catalogue that only some devices have, with the elements of their scratch argument (W).
    """

    act_dtypes: tuple[DType, ...]
    cache_bytes: int | None
    shares_host_memory: bool
    workspaces: Mapping[Op, Workspace]


class Device(Protocol):
    """One processor with its memory. `backend` names the code that computes; `name` and `compiler` are for people."""

    backend: str
    name: str
    compiler: str
    traits: Traits

    def allocate(self, size_bytes: int) -> tuple[int, Any]:
        """Return (address, owner) of zeroed memory, aligned to at least 64 bytes; freed with its owner."""
        ...

    def free_bytes(self) -> int:
        """Return about how much memory can still be allocated."""
        ...

    def write(self, tensor: Tensor, values: NDArray[Any]) -> None:
        """Copy host values to a tensor. Raises ValueError if shape or dtype differ."""
        ...

    def read(self, tensor: Tensor) -> NDArray[Any]:
        """Return a host copy of a tensor, after all launches before it."""
        ...

    def prepare(self, launches: Sequence[Launch]) -> Callable[[], None]:
        """Compile and bind launches; return the function that replays them in order."""
        ...


def check_transfer(tensor: Tensor, values: NDArray[Any]) -> None:
    """Raise ValueError unless values fit the tensor exactly, TypeError unless they are an array."""
    if not isinstance(values, np.ndarray):
        raise TypeError(f"{tensor.name}: got a {type(values).__name__}, expected an array")
    if values.shape != tensor.shape or values.dtype != tensor.dtype.numpy:
        raise ValueError(
            f"{tensor.name}: got {values.dtype} {values.shape}, expected {tensor.dtype.numpy} {tensor.shape}"
        )


class DeviceAbsent(UserError):
    """This machine has no such device, or no driver or Python package to reach it."""
