"""A device that allocates numbers and launches nothing: would it fit, and what would it move?"""

from collections.abc import Callable, Sequence

import numpy as np

from hipgpt.compute.backends.cpu import act_dtypes
from hipgpt.compute.device import check_transfer
from hipgpt.compute.launch import Launch
from hipgpt.compute.tensor import DType, Tensor


class NullDevice:
    """Counts `allocated_bytes`; transfers are checked and dropped, reads are zeros. gpu: stands for one, not for this
    machine's CPU."""

    name = "null"

    def __init__(self, gpu: bool = False) -> None:
        self.backend = "gpu" if gpu else "cpu"
        self.act_dtypes = (DType.BF16, DType.F32) if gpu else act_dtypes()
        self.allocated_bytes = 0

    def allocate(self, size_bytes: int) -> tuple[int, None]:
        address = 64 + -(-self.allocated_bytes // 64) * 64
        self.allocated_bytes = address + size_bytes
        return address, None

    def write(self, tensor: Tensor, values: np.ndarray) -> None:
        check_transfer(tensor, values)

    def read(self, tensor: Tensor) -> np.ndarray:
        return np.zeros(tensor.shape, tensor.dtype.numpy)

    def prepare(self, launches: Sequence[Launch]) -> Callable[[], None]:
        return lambda: None
