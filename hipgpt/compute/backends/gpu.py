"""What HIP and CUDA share: memory, compiling and binding kernels, replay as one captured graph."""

import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from hipgpt.base.compiler import code_object
from hipgpt.base.errors import UserError
from hipgpt.base.paths import KERNELS
from hipgpt.compute.backends.launch_shapes import WIDTH
from hipgpt.compute.backends.variants import Variant, find_variant, has_matrix_units
from hipgpt.compute.contract import Op
from hipgpt.compute.device import Traits, check_transfer
from hipgpt.compute.launch import Launch
from hipgpt.compute.tensor import DType, Tensor

GPU = KERNELS / "gpu"
HEADERS = {
    "formulas.h": KERNELS / "formulas.h",
    "reduce.h": GPU / "reduce.h",
    "values.h": GPU / "values.h",
    "common.h": GPU / "platform" / "common.h",
    "tile.h": GPU / "fragment" / "tile.h",
    "columns.h": GPU / "fragment" / "columns.h",
    "head.h": GPU / "fragment" / "head.h",
    "pieces.h": GPU / "product" / "pieces.h",
}


Grid = tuple[int, int, int]
Call = tuple[Any, Grid, int, int, list[Any]]  # function, grid, threads, bytes of dynamic shared memory, C arguments


WHOLE, PARTS, ADDING = range(3)  # Phase in kernels/gpu/product/pieces.h


def traits(act_dtypes: tuple[DType, ...]) -> Traits:
    """Return how a GPU computes that is fastest with the first of these dtypes."""
    return Traits(act_dtypes, cache_bytes=None, shares_host_memory=False, workspaces={})


class OutOfMemory(Exception):
    """The device has not the memory that was asked for."""


class Driver(Protocol):
    """The vendor's calls, on one device and one stream. Errors name the call and give the driver's own words.

    What `function` returns is for `launch`, whose errors name the kernel too.
    """

    backend: str
    name: str
    arch: str
    wave: int
    compiler: str

    def compile(self, name: str, source: str, headers: Mapping[str, str]) -> bytes: ...
    def load(self, image: bytes) -> Any: ...
    def function(self, module: Any, name: str, shared_bytes: int = 0) -> Any: ...
    def allocate(self, size_bytes: int) -> int: ...
    def free(self, address: int) -> None: ...
    def free_bytes(self) -> int: ...
    def upload(self, address: int, values: np.ndarray) -> None: ...
    def download(self, values: np.ndarray, address: int) -> None: ...
    def launch(self, function: Any, grid: Grid, threads: int, shared_bytes: int, arguments: Sequence[Any]) -> None: ...
    def capture(self, record: Callable[[], None]) -> Callable[[], None]: ...


class Allocation:
    """Device memory that is freed with its last tensor."""

    def __init__(self, driver: Driver, size_bytes: int):
        self._driver, self.size_bytes, self.address = driver, size_bytes, driver.allocate(size_bytes)

    def __del__(self) -> None:
        if hasattr(self, "address"):
            self._driver.free(self.address)


class GpuDevice:
    """A GPU as a device. graphs: replay a plan as one captured graph; without, launch by launch."""

    def __init__(self, driver: Driver, graphs: bool = True):
        self.backend, self.name = driver.backend, f"{driver.backend} {driver.name} ({driver.arch})"
        self.compiler = driver.compiler
        self.traits = traits((DType.BF16, DType.F32) if has_matrix_units(driver.arch) else (DType.F32, DType.BF16))
        self._driver, self._graphs, self._modules, self._workspaces = driver, graphs, {}, []

    def allocate(self, size_bytes: int) -> tuple[int, Allocation]:
        try:
            owner = Allocation(self._driver, max(size_bytes, 1))
        except OutOfMemory as error:
            raise UserError(
                f"{self.name}: out of memory: asked for {size_bytes:,} bytes, {self.free_bytes():,} are free; lower "
                "training.batch_sequences and raise training.accumulation_steps, or lower model.context_length, "
                "model.num_layers or model.embed_dim; `hipgpt info` shows what each table takes"
            ) from error
        self._driver.upload(owner.address, np.zeros(size_bytes, np.uint8))
        return owner.address, owner

    def free_bytes(self) -> int:
        """Return how much memory can still be allocated, about."""
        return self._driver.free_bytes()

    def write(self, tensor: Tensor, values: np.ndarray) -> None:
        check_transfer(tensor, values)
        self._driver.upload(tensor.address, np.ascontiguousarray(values))

    def read(self, tensor: Tensor) -> np.ndarray:
        values = np.empty(tensor.shape, tensor.dtype.numpy)
        self._driver.download(values, tensor.address)
        return values

    def prepare(self, launches: Sequence[Launch]) -> Callable[[], None]:
        calls = [call for launch in launches for call in self._bind(launch)]

        def run_all() -> None:
            for call in calls:
                self._driver.launch(*call)

        owners = [launch.tensors for launch in launches]
        replay = self._driver.capture(run_all) if self._graphs else run_all

        def replay_with_its_memory(keep: Any = owners) -> None:
            replay()

        return replay_with_its_memory

    def _bind(self, launch: Launch) -> list[Call]:
        """Return the kernel calls of a launch; every scalar as the contract's ctypes type."""
        op, sizes = launch.op, launch.sizes
        variant = find_variant(op, self._driver.arch, launch.act, sizes)
        function = self._driver.function(self._module(variant, op, launch.act), op.name, variant.shared_bytes)
        grid, threads = variant.geometry[op.name](sizes, self._driver.wave)
        arguments = launch.c_arguments()
        shared = variant.shared_bytes
        if not variant.cuts:
            return [(function, grid, threads, shared, arguments)]
        parts, place = variant.parts(op, sizes), None
        phases = ((WHOLE, 1),)
        if parts > 1:
            place = self._reserve(variant.workspace_bytes(op, sizes))
            phases = ((PARTS, parts), (ADDING, -(-variant.side * variant.side // (WIDTH * threads))))
        return [
            (function, (*grid[:2], blocks), threads, shared, [*arguments, *_parts_arguments(place, phase, parts)])
            for phase, blocks in phases
        ]

    def _reserve(self, size_bytes: int) -> int:
        """Return the address of memory that one launch after another may use; it is kept with the device."""
        if not self._workspaces or self._workspaces[-1][1].size_bytes < size_bytes:
            self._workspaces.append(self.allocate(size_bytes))
        return self._workspaces[-1][0]

    def _module(self, variant: Variant, op: Op, act: DType) -> Any:
        key = variant.source_of(op), variant.side, *variant.headers.values(), act
        if key not in self._modules:
            self._modules[key] = self._driver.load(compile_source(self._driver, variant, op, act))
        return self._modules[key]


def _parts_arguments(workspace: int | None, phase: int, parts: int) -> list[Any]:
    return [ctypes.c_void_p(workspace), ctypes.c_int32(phase), ctypes.c_int32(parts)]


def compile_source(driver: Driver, variant: Variant, op: Op, act: DType) -> bytes:
    """Return the code object of the .hip file that serves an op on the device, from the cache or compiled now."""
    source = KERNELS / variant.source_of(op)
    paths = HEADERS | {"platform.h": GPU / "platform" / f"{driver.backend}.h", "act.h": GPU / "act" / f"{act.label}.h"}
    paths |= {name: GPU / path for name, path in variant.headers.items()}
    headers = {name: path.read_text() for name, path in paths.items()}
    if variant.side:
        headers["side.h"] = f"constexpr int SIDE = {variant.side};\n"
    text = source.read_text()
    key = [driver.backend, driver.arch, str(driver.wave), driver.compiler, text, *headers.values()]
    return code_object(source.stem, key, lambda: driver.compile(source.name, text, headers))
