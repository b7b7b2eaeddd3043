"""The protocol of a vendor's driver, which GpuDevice calls, and device memory that is freed with its owner."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from hipgpt.compute.backends.launch_shapes import Grid


class OutOfMemory(Exception):
    """The device does not have the memory that was asked for."""


class Driver(Protocol):
    """A vendor's calls, on one device and one stream. Every method raises UserError with the call's name and the
    driver's own words if a call fails.

    backend: hip or cuda; name: the device's; arch: its architecture, such as gfx90a or sm_80; wave: lanes of a wave;
    multiprocessors: how many of them, or of AMD's compute units;
    compiler: the run-time compiler and its version, which count in the key of a cached code object. stream: the
    handle of its stream, for libraries that put work on it. checks_kernels: whether kernels that use matrix units are
    compared with plain arithmetic at their first use.
    """

    backend: str
    name: str
    arch: str
    wave: int
    multiprocessors: int
    compiler: str
    checks_kernels: bool

    @property
    def stream(self) -> int: ...

    def compile(self, name: str, source: str, headers: Mapping[str, str], macros: Mapping[str, int]) -> bytes:
        """Return the code object of one source file for this device.

        name: the file's name in messages; headers: text by the name that includes use; macros: -D by name.
        Raises UserError with the compiler's log if it does not compile.
        """

    def load(self, image: bytes) -> Any:
        """Return a module for `function`. image: a code object of `compile`, made for this device."""

    def function(self, module: Any, name: str, shared_bytes: int = 0) -> Any:
        """Return a kernel for `launch`, whose errors name it too. shared_bytes: the most dynamic shared memory that its
        launches use.
        """

    def allocate(self, size_bytes: int) -> int:
        """Return the address of device memory, its values undefined. Raises OutOfMemory if there is not enough."""

    def free(self, address: int) -> None:
        """Free what `allocate` returned."""

    def free_bytes(self) -> int:
        """Return how much device memory is free."""

    def clear(self, address: int, size_bytes: int, stream: int | None = None) -> None:
        """Set bytes to zero, in the order of the driver's stream or another one."""

    def new_stream(self) -> int:
        """Return the handle of one more stream, which lives as long as the driver."""

    def order(self, first: int, then: int) -> None:
        """Make what is put on the stream `then` from now on wait for what has been put on the stream `first`."""

    def upload(self, address: int, values: np.ndarray) -> None:
        """Copy contiguous values to the device in stream order; the caller may change them afterwards."""

    def download(self, values: np.ndarray, address: int) -> None:
        """Fill contiguous values from the device, after all earlier work of the stream."""

    def finished(self) -> bool:
        """Return whether all earlier work of the stream is done."""

    def tensor_map(self, address: int, rows: int, columns: int, box_rows: int) -> Any:
        """Return the tensor map of a row-major matrix of bf16, as an argument of `launch`.

        Its boxes are box_rows rows by 64 columns: see kernels/gpu/hopper/tensor_map.h. Only rows for NVIDIA need it.
        """

    def launch(self, function: Any, grid: Grid, threads: int, shared_bytes: int, arguments: Sequence[Any]) -> None:
        """Start a kernel on the stream, without waiting.

        grid: blocks along x, y and z; threads: of a block, along x; shared_bytes: dynamic shared memory of a block;
        arguments: ctypes values in the order of the kernel's parameters.
        """

    def launch_together(
        self, function: Any, grid: Grid, threads: int, shared_bytes: int, arguments: Sequence[Any]
    ) -> None:
        """Do as `launch` for a kernel whose blocks wait for each other. Only rows for NVIDIA need it.

        Raises UserError if the device cannot hold all blocks at once.
        """

    def capture(
        self, groups: Sequence[Sequence[Callable[[], None]]], earlier: Sequence[Sequence[int]]
    ) -> Callable[[], None]:
        """Return a function that replays, as one graph, what groups of calls launch. They do not run meanwhile.

        earlier: for each group the numbers of those before it that it waits for. A driver may let it wait for more.
        """


class Allocation:
    """Device memory that is freed when its last tensor is gone."""

    def __init__(self, driver: Driver, size_bytes: int):
        self._driver, self.size_bytes, self.address = driver, size_bytes, driver.allocate(size_bytes)

    def __del__(self) -> None:
        if hasattr(self, "address"):
            self._driver.free(self.address)
