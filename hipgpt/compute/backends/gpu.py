"""What HIP and CUDA share: memory, compiling and binding kernels, replay as one captured graph."""

import contextlib
import ctypes
import functools
import gc
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from hipgpt.base.compiler import compile_code_objects
from hipgpt.base.errors import UserError
from hipgpt.compute.backends import decode_blocks, decode_tokens, self_check, token_layers
from hipgpt.compute.backends.code_objects import code_of, compile_source
from hipgpt.compute.backends.driver import Allocation, Driver, OutOfMemory
from hipgpt.compute.backends.hopper_variants import HOPPER
from hipgpt.compute.backends.persistent_gemm import Boxes
from hipgpt.compute.backends.variant import Variant
from hipgpt.compute.backends.variants import find_variant, has_matrix_units, is_served
from hipgpt.compute.communicator import COLLECTIVES, Communicator, HostCommunicator
from hipgpt.compute.contract import Op
from hipgpt.compute.dependencies import Use, predecessors, uses
from hipgpt.compute.device import Traits, Workspace, check_transfer
from hipgpt.compute.fused_ops import (
    ATTENTION_SHORT_BACKWARD,
    BLOCK_WEIGHTS,
    DECODE_BLOCKS,
    DECODE_TOKENS,
    OUTPUT_LAYER_LOSS,
    TOKEN_LAYERS_BACKWARD,
)
from hipgpt.compute.launch import Launch
from hipgpt.compute.process_group import ProcessGroup
from hipgpt.compute.tensor import DType, Tensor

Call = Callable[[], None]
NO_TENSOR_MAP = (ctypes.c_uint64 * 16)()
WORKSPACES = 4  # for launches that run side by side


def traits(act_dtypes: tuple[DType, ...], workspaces: Mapping[Op, Workspace] = MappingProxyType({})) -> Traits:
    """Return how a GPU computes that is fastest with the first of these dtypes."""
    return Traits(act_dtypes, cache_bytes=None, shares_host_memory=False, workspaces=workspaces)


def fused_op_workspaces(arch: str, multiprocessors: int) -> Mapping[Op, Workspace]:
    """Return the ops that only some GPUs have, with their workspaces, for a GPU of so many multiprocessors."""

    def served(op: Op) -> Workspace:
        return lambda sizes, act: int(is_served(op, arch, act, sizes))

    ops = {op: served(op) for op in (ATTENTION_SHORT_BACKWARD, BLOCK_WEIGHTS, OUTPUT_LAYER_LOSS)}
    if arch == HOPPER:
        ops[DECODE_BLOCKS] = decode_blocks.workspace(multiprocessors)
        ops[DECODE_TOKENS] = decode_tokens.workspace(multiprocessors)
        ops[TOKEN_LAYERS_BACKWARD] = token_layers.partials
    return ops


class GpuDevice:
    """A GPU as a device. graphs: replay a plan as one captured graph; otherwise launch by launch.

    communicator: reaches the GPUs of other processes; by default there are none.
    """

    def __init__(self, driver: Driver, graphs: bool = True, communicator: Communicator | None = None):
        self.communicator: Communicator = communicator or HostCommunicator(ProcessGroup())
        self.backend, self.name = driver.backend, f"{driver.backend} {driver.name} ({driver.arch})"
        self.compiler = driver.compiler
        fastest_first = (DType.BF16, DType.F32) if has_matrix_units(driver.arch) else (DType.F32, DType.BF16)
        self.traits = traits(fastest_first, fused_op_workspaces(driver.arch, driver.multiprocessors))
        self._driver, self._graphs = driver, graphs
        self._modules: dict[tuple[Any, ...], Any] = {}
        self._checked: set[tuple[Any, ...]] = set()
        self._workspaces: list[list[tuple[int, Allocation]]] = [[] for _ in range(WORKSPACES)]

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
        """Compile and bind the kernels of launches; return a function that runs them, without waiting.

        In a graph, if the driver can, a launch waits only for those whose memory it shares, so that small kernels run
        side by side. With collectives, or without graphs, launches run in order.
        """
        self.compile(launches)
        side_by_side = self._driver.side_by_side and self._graphs
        if side_by_side and not any(launch.op in COLLECTIVES for launch in launches):
            groups, earlier = self._side_by_side(launches)
        else:
            groups, earlier = self._in_order(launches)

        def run_all() -> None:
            for call in itertools.chain(*groups):
                call()

        owners = [launch.tensors for launch in launches]
        with _no_collection():
            replay = self._driver.capture(groups, earlier) if self._graphs else run_all

        def replay_with_its_memory(keep: Any = owners) -> None:
            replay()

        return replay_with_its_memory

    def _side_by_side(self, launches: Sequence[Launch]) -> tuple[list[list[Call]], list[list[int]]]:
        """Return the kernel calls of each launch, and the numbers of the launches that it waits for."""
        variants = [self._checked_variant(launch) for launch in launches]
        sizes = [row.workspace_bytes(launch.op, launch.sizes) for row, launch in zip(variants, launches, strict=True)]
        numbers = itertools.cycle(range(WORKSPACES))
        calls: list[list[Call]] = []
        memory: list[list[Use]] = []
        for variant, launch, size in zip(variants, launches, sizes, strict=True):
            own = uses(launch)
            workspace = self._workspace(max(sizes), next(numbers)) if size else None
            if workspace is not None:
                own.append(Use(workspace, size, writes=True))
            calls.append(self._calls(variant, launch, workspace))
            memory.append(own)
        return calls, predecessors(memory)

    def _in_order(self, launches: Sequence[Launch]) -> tuple[list[list[Call]], list[list[int]]]:
        """Return groups of calls, each of which waits for the one before.

        A collective starts in its place; the launches after it run beside it up to the first that shares its memory.
        """
        groups: list[list[Call]] = []
        under_way: list[Launch] = []  # collectives that later launches have not waited for
        for far, group in itertools.groupby(launches, key=lambda launch: launch.op in COLLECTIVES):
            if far:
                started = list(group)
                groups.append([self.communicator.bind(started)])
                under_way += started
                continue
            for launch in group:
                if any(launch.shares_memory_with(each) for each in under_way):
                    groups.append([self.communicator.join])
                    under_way.clear()
                groups.append(self._calls_in_order(self._checked_variant(launch), launch))
        if under_way:
            groups.append([self.communicator.join])
        return groups, [[index - 1] if index else [] for index in range(len(groups))]

    def _checked_variant(self, launch: Launch) -> Variant:
        """Return the row that serves a launch, which has passed its check if the chip's kernels are checked."""
        variant = find_variant(launch.op, self._driver.arch, launch.act, launch.sizes)
        if self._driver.checks_kernels and self_check.is_by_matrix_units(variant, launch.op):
            self.check(variant, launch.op, launch.act)
        return variant

    def check(self, variant: Variant, op: Op, act: DType) -> None:
        """Check the kernel of one row of the table of variants unless it is known to be right on this device."""
        key = op.name, variant.source_of(op), *variant.macros.items(), act
        if key not in self._checked:
            self_check.check_once(self, variant, op, act, compile_source(self._driver, variant, op, act))
            self._checked.add(key)

    def run(self, variant: Variant, launch: Launch) -> None:
        """Run a launch by the kernel of one row of the table of variants."""
        for call in self._calls_in_order(variant, launch):
            call()

    def _calls_in_order(self, variant: Variant, launch: Launch) -> list[Call]:
        """Return the kernel calls of a launch that runs after all earlier ones, so that one workspace serves all."""
        return self._calls(variant, launch, self._workspace(variant.workspace_bytes(launch.op, launch.sizes)))

    def _calls(self, variant: Variant, launch: Launch, workspace: int | None) -> list[Call]:
        """Return the kernel calls of a launch by one row; every scalar as the contract's ctypes type."""
        op, sizes = launch.op, launch.sizes
        function = self._driver.function(self._module(variant, op, launch.act), op.name, variant.shared_bytes)
        arguments = launch.c_arguments()
        maps = [self._tensor_map(launch.argument(boxes.argument), boxes) for boxes in variant.boxes(op)]
        start = self._driver.launch_together if variant.together else self._driver.launch
        return [
            functools.partial(start, function, grid, threads, variant.shared_bytes, [*arguments, *more, *maps])
            for (grid, threads), more in variant.launches(op, sizes, self._driver.wave, workspace)
        ]

    def _tensor_map(self, tensor: Tensor | None, boxes: Boxes) -> Any:
        if tensor is None:
            return NO_TENSOR_MAP
        columns = math.prod(tensor.shape[-boxes.inner :])
        return self._driver.tensor_map(tensor.address, tensor.elements // columns, columns, boxes.rows)

    def _workspace(self, size_bytes: int, number: int = 0) -> int | None:
        """Return the address of memory that one launch after another may use, None for 0 bytes.

        number: of one of the WORKSPACES. The device keeps all memory that it has handed out, because a recorded plan
        has its address.
        """
        if not size_bytes:
            return None
        kept = self._workspaces[number]
        if not kept or kept[-1][1].size_bytes < size_bytes:
            kept.append(self.allocate(size_bytes))
        return kept[-1][0]

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
