"""The Device protocol: memory, transfers and launches. The rest of HipGPT uses a backend through it only."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hipgpt.base.errors import UserError
from hipgpt.compute.communicator import Communicator
from hipgpt.compute.contract import Op
from hipgpt.compute.launch import Launch
from hipgpt.compute.tensor import DType, Tensor

Workspace = Callable[[Mapping[str, int], DType], int]  # (sizes of a call, activation dtype) -> elements of its scratch


@dataclass(frozen=True)
class Traits:
    """The properties of a device that determine which launches a plan should hold.

    act_dtypes: the dtypes of activations that it has kernels for, fastest first.
    cache_bytes: the bytes of activations that its caches hold; None if larger batches are never slower.
    shares_host_memory: whether its tensors are stored in host memory, where the CPU can read them in place.
    workspaces: the ops that only some devices have, with the number of elements of their workspace (W of
    output_layer_training, K of decode_blocks and of token_layers_backward; 1 for an op without a workspace), 0 if the
    op does not serve these sizes.
    """

    act_dtypes: tuple[DType, ...]
    cache_bytes: int | None
    shares_host_memory: bool
    workspaces: Mapping[Op, Workspace]

    def workspace(self, op: Op, sizes: Mapping[str, int], act: DType) -> int:
        """Return the number of elements of an op of `workspaces`, 0 if the device does not serve these sizes."""
        return self.workspaces[op](sizes, act) if op in self.workspaces else 0


class Device(Protocol):
    """One processor with its memory. `backend` names the code that runs on it; `name` and `compiler` are for people.

    communicator: reaches the devices of the other processes that train the same model, if there are any.
    """

    backend: str
    name: str
    compiler: str
    traits: Traits
    communicator: Communicator

    def allocate(self, size_bytes: int) -> tuple[int, Any]:
        """Return (address, owner) of zeroed memory, aligned to at least 64 bytes. It is freed with its owner.

        Raises UserError if the device has too little memory.
        """
        ...

    def free_bytes(self) -> int:
        """Return about how many bytes can still be allocated."""
        ...

    def write(self, tensor: Tensor, values: NDArray[Any]) -> None:
        """Copy host values to a tensor. Raises ValueError if shape or dtype differ."""
        ...

    def read(self, tensor: Tensor) -> NDArray[Any]:
        """Return a host copy of a tensor. Waits for all earlier launches."""
        ...

    def compile(self, launches: Sequence[Launch]) -> None:
        """Compile the kernels of launches now, on a CPU in parallel. `prepare` compiles too."""
        ...

    def prepare(self, launches: Sequence[Launch]) -> Callable[[], None]:
        """Compile and bind launches; return the function that replays them in order."""
        ...


def check_transfer(tensor: Tensor, values: NDArray[Any]) -> None:
    """Raise ValueError unless values have the shape and dtype of the tensor, TypeError unless they are an array."""
    if not isinstance(values, np.ndarray):
        raise TypeError(f"{tensor.name}: got a {type(values).__name__}, expected an array")
    if values.shape != tensor.shape or values.dtype != tensor.dtype.numpy:
        raise ValueError(
            f"{tensor.name}: got {values.dtype} {values.shape}, expected {tensor.dtype.numpy} {tensor.shape}"
        )


class DeviceAbsent(UserError):
    """This machine has no such device, or no driver or Python package to reach it."""
