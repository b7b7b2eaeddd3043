"""What HIP and CUDA share: memory, compiling and binding kernels, replay as one captured graph."""

import contextlib
import functools
import gc
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from hipgpt.base.compiler import CodeObject, compile_code_objects, with_headers
from hipgpt.base.errors import UserError
from hipgpt.base.paths import KERNELS
from hipgpt.compute.backends import decode_blocks, self_check
from hipgpt.compute.backends.driver import Allocation, Driver, OutOfMemory
from hipgpt.compute.backends.persistent_gemm import Boxes
from hipgpt.compute.backends.variant import Variant
from hipgpt.compute.backends.variants import HOPPER, find_variant, has_matrix_units
from hipgpt.compute.catalogue import DECODE_BLOCKS
from hipgpt.compute.communicator import COLLECTIVES, Communicator, HostCommunicator
from hipgpt.compute.contract import Op
from hipgpt.compute.device import Traits, Workspace, check_transfer
from hipgpt.compute.launch import Launch
from hipgpt.compute.process_group import ProcessGroup
from hipgpt.compute.tensor import DType, Tensor


def traits(act_dtypes: tuple[DType, ...], workspaces: Mapping[Op, Workspace] = MappingProxyType({})) -> Traits:
    """Return how a GPU computes that is fastest with the first of these dtypes."""
    return Traits(act_dtypes, cache_bytes=None, shares_host_memory=False, workspaces=workspaces)


class GpuDevice:
    """A GPU as a device. graphs: replay a plan as one captured graph; otherwise launch by launch.

    communicator: reaches the GPUs of other processes; by default there are none.
    """

    def __init__(self, driver: Driver, graphs: bool = True, communicator: Communicator | None = None):
        self.communicator: Communicator = communicator or HostCommunicator(ProcessGroup())
        self.backend, self.name = driver.backend, f"{driver.backend} {driver.name} ({driver.arch})"
        self.compiler = driver.compiler
        fastest_first = (DType.BF16, DType.F32) if has_matrix_units(driver.arch) else (DType.F32, DType.BF16)
        extra = {DECODE_BLOCKS: decode_blocks.workspace(driver.multiprocessors)} if driver.arch == HOPPER else {}
        self.traits = traits(fastest_first, extra)
        self._driver, self._graphs = driver, graphs
        self._modules: dict[tuple[Any, ...], Any] = {}
        self._checked: set[tuple[Any, ...]] = set()
        self._workspaces: list[tuple[int, Allocation]] = []

    def allocate(self, size_bytes: int) -> tuple[int, Allocation]:
        """Return the address of zeroed memory and its owner. Raises UserError if there is not enough."""
        try:
            owner = Allocation(self._driver, max(size_bytes, 1))
        except OutOfMemory as error:
            raise UserError(
                f"{self.name}: out of memory: asked for {size_bytes:,} bytes, {self.free_bytes():,} are free; lower "
                "training.batch_sequences and raise training.accumulation_steps, or lower model.context_length, "
                "model.num_layers or model.embed_dim; `hipgpt info` shows what each table takes"
            ) from error
        if size_bytes:
            self._driver.clear(owner.address, size_bytes)
        return owner.address, owner

    def free_bytes(self) -> int:
        """Return about how much memory can still be allocated."""
        return self._driver.free_bytes()

    def write(self, tensor: Tensor, values: np.ndarray) -> None:
        """Copy values to a tensor of their shape and dtype."""
        check_transfer(tensor, values)
        self._driver.upload(tensor.address, np.ascontiguousarray(values))

    def read(self, tensor: Tensor) -> np.ndarray:
        """Return a tensor's values, once all earlier work on the device is done."""
        values = np.empty(tensor.shape, tensor.dtype.numpy)
        if self.communicator.group.size > 1:
            self.communicator.wait(self._driver.finished)
        self._driver.download(values, tensor.address)
        return values

    def compile(self, launches: Sequence[Launch]) -> None:
        kernels = [launch for launch in launches if launch.op not in COLLECTIVES]
        rows = [(find_variant(one.op, self._driver.arch, one.act, one.sizes), one.op, one.act) for one in kernels]
        new = {_key(*row): row for row in rows if _key(*row) not in self._modules}
        codes = {key: code_of(self._driver, *row) for key, row in new.items()}
        compile_code_objects(codes.values())
        for key, code in codes.items():
            self._modules[key] = self._driver.load(code.read())

    def prepare(self, launches: Sequence[Launch]) -> Callable[[], None]:
        """Compile and bind the kernels of launches; return a function that runs them in order, without waiting.

        A collective starts in its place; the launches after it run beside it up to the first that shares its memory.
        """
        self.compile(launches)
        calls: list[Callable[[], None]] = []
        under_way: list[Launch] = []  # collectives that later launches have not waited for
        for far, group in itertools.groupby(launches, key=lambda launch: launch.op in COLLECTIVES):
            if far:
                started = list(group)
                calls.append(self.communicator.bind(started))
                under_way += started
                continue
            for launch in group:
                if any(launch.shares_memory_with(each) for each in under_way):
                    calls.append(self.communicator.join)
                    under_way.clear()
                calls += self._bind(launch)
        if under_way:
            calls.append(self.communicator.join)

        def run_all() -> None:
            for call in calls:
                call()

        owners = [launch.tensors for launch in launches]
        with _no_collection():
            replay = self._driver.capture(run_all) if self._graphs else run_all

        def replay_with_its_memory(keep: Any = owners) -> None:
            replay()

        return replay_with_its_memory

    def _bind(self, launch: Launch) -> list[Callable[[], None]]:
        """Return the kernel calls of a launch, whose kernel has passed its check if the chip's kernels are checked."""
        variant = find_variant(launch.op, self._driver.arch, launch.act, launch.sizes)
        if self._driver.checks_kernels and variant.macros:  # that choose a matrix instruction
            self.check(variant, launch.op, launch.act)
        return self._calls(variant, launch)

    def check(self, variant: Variant, op: Op, act: DType) -> None:
        """Check the kernel of one row of the table of variants unless it is known to be right on this device."""
        key = op.name, variant.source_of(op), *variant.macros.items(), act
        if key not in self._checked:
            self_check.check_once(self, variant, op, act, compile_source(self._driver, variant, op, act))
            self._checked.add(key)

    def run(self, variant: Variant, launch: Launch) -> None:
        """Run a launch by the kernel of one row of the table of variants."""
        for call in self._calls(variant, launch):
            call()

    def _calls(self, variant: Variant, launch: Launch) -> list[Callable[[], None]]:
        """Return the kernel calls of a launch by one row; every scalar as the contract's ctypes type."""
        op, sizes = launch.op, launch.sizes
        function = self._driver.function(self._module(variant, op, launch.act), op.name, variant.shared_bytes)
        workspace = self._workspace(variant.workspace_bytes(op, sizes))
        arguments = launch.c_arguments()
        maps = [self._tensor_map(launch.tensor(boxes.argument), boxes) for boxes in variant.boxes(op)]
        start = self._driver.launch_together if variant.together else self._driver.launch
        return [
            functools.partial(start, function, grid, threads, variant.shared_bytes, [*arguments, *more, *maps])
            for (grid, threads), more in variant.launches(op, sizes, self._driver.wave, workspace)
        ]

    def _tensor_map(self, tensor: Tensor, boxes: Boxes) -> Any:
        columns = math.prod(tensor.shape[-boxes.inner :])
        return self._driver.tensor_map(tensor.address, tensor.elements // columns, columns, boxes.rows)

    def _workspace(self, size_bytes: int) -> int | None:
        """Return the address of memory that one launch after another may use, None for 0 bytes.

        The device keeps every workspace that it has handed out, because a recorded plan has its address.
        """
        if not size_bytes:
            return None
        if not self._workspaces or self._workspaces[-1][1].size_bytes < size_bytes:
            self._workspaces.append(self.allocate(size_bytes))
        return self._workspaces[-1][0]

    def _module(self, variant: Variant, op: Op, act: DType) -> Any:
        key = _key(variant, op, act)
        if key not in self._modules:
            self._modules[key] = self._driver.load(compile_source(self._driver, variant, op, act))
        return self._modules[key]


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Collect no garbage meanwhile: it could free device memory, which a driver refuses while it records a graph."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _key(variant: Variant, op: Op, act: DType) -> tuple[Any, ...]:
    return variant.source_of(op), *variant.macros.items(), act


def macros_of(driver: Driver, variant: Variant, act: DType) -> dict[str, int]:
    """Return the macros that a row is compiled with: kernels/gpu/select/*.h choose files by them."""
    platform = {f"PLATFORM_{driver.backend.upper()}": 1, "WAVE": driver.wave}
    return platform | {"ACT_BF16": int(act is DType.BF16), **variant.macros}


def compile_source(driver: Driver, variant: Variant, op: Op, act: DType) -> bytes:
    """Return the code object of the .hip file that serves an op on the device, from the cache or compiled now."""
    return code_of(driver, variant, op, act).read()


def code_of(driver: Driver, variant: Variant, op: Op, act: DType) -> CodeObject:
    """Return the code object of the .hip file that serves an op on the device, which need not be compiled yet."""
    source, macros = KERNELS / variant.source_of(op), macros_of(driver, variant, act)
    text, headers = source.read_text(encoding="utf-8"), included(source)
    defined = [f"{name}={value}" for name, value in macros.items()]
    key = [driver.backend, driver.arch, driver.compiler, *defined, text, *headers, *headers.values()]
    return CodeObject(source.stem, key, lambda: driver.compile(source.name, text, headers, macros))


def included(source: Path) -> dict[str, str]:
    """Return the text of every file that a source includes, directly or not, by its name in the includes."""
    return {path.relative_to(KERNELS).as_posix(): path.read_text(encoding="utf-8") for path in with_headers(source)[1:]}
