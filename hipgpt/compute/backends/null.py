"""A device that allocates numbers and launches nothing: would it fit, and what would it move?"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hipgpt.compute.communicator import Communicator, HostCommunicator
from hipgpt.compute.device import Traits, check_transfer
from hipgpt.compute.launch import Launch
from hipgpt.compute.process_group import ProcessGroup
from hipgpt.compute.tensor import Tensor


class NullDevice:
    """Counts `allocated_bytes`; transfers are checked and dropped, reads are zeros.

    traits: those of the device that plans are recorded for; group: the ranks that it is recorded for.
    """

    backend = name = "null"
    compiler = "none"
    communicator: Communicator

    def __init__(self, traits: Traits, group: ProcessGroup | None = None) -> None:
        self.traits, self.allocated_bytes = traits, 0
        self.communicator = HostCommunicator(group or ProcessGroup())

    def allocate(self, size_bytes: int) -> tuple[int, None]:
        address = 64 + -(-self.allocated_bytes // 64) * 64
        self.allocated_bytes = address + size_bytes
        return address, None

    def free_bytes(self) -> int:
        return 1 << 62

    def write(self, tensor: Tensor, values: NDArray[Any]) -> None:
        check_transfer(tensor, values)

    def read(self, tensor: Tensor) -> NDArray[Any]:
        return np.zeros(tensor.shape, tensor.dtype.numpy)

    def compile(self, launches: Sequence[Launch]) -> None:
        pass

    def prepare(self, launches: Sequence[Launch]) -> Callable[[], None]:
        return lambda: None
