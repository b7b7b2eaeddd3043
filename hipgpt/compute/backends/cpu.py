"""The CPU backend: kernels/cpu compiled by the host's C++ compiler, called through ctypes."""

import ctypes
import functools
import itertools
import os
import platform
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hipgpt.base.compiler import compile_libraries, host_compiler_version, host_macros, load_library
from hipgpt.base.errors import UserError
from hipgpt.base.kernel_constants import kernel_constants
from hipgpt.base.paths import KERNELS
from hipgpt.compute.backends.variant import Variant
from hipgpt.compute.backends.variants import find_variant, has_matrix_units
from hipgpt.compute.catalogue import OUTPUT_LAYER_TRAINING
from hipgpt.compute.communicator import COLLECTIVES, Communicator, HostCommunicator
from hipgpt.compute.device import Traits, check_transfer
from hipgpt.compute.launch import Launch
from hipgpt.compute.process_group import ProcessGroup
from hipgpt.compute.tensor import DType, Tensor

CPU = KERNELS / "cpu"
CACHE_BYTES = 64 << 20  # of activations, to be read again before they leave the caches
OPERAND = kernel_constants(CPU / "gemm" / "dual_operand_size.h")
BF16_DOTS = {"__AVX512BF16__", "__AVX512BW__", "__AVX512VL__"}
AMX = BF16_DOTS | {"__AMX_TILE__", "__AMX_BF16__"}
ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA = 158, 0x1023, 18  # Linux on x86-64, Documentation/arch/x86/xstate.rst


@functools.cache
def arch() -> str:
    """Return what kernels this processor can run, as the table of variants says it."""
    if host_macros() >= AMX and _may_use_tiles():
        return "cpu-amx"
    return "cpu-avx512bf16" if host_macros() >= BF16_DOTS else "cpu"


def _may_use_tiles() -> bool:
    """Ask Linux for the registers of AMX, which a process has only then; return whether it agrees."""
    return platform.system() == "Linux" and ctypes.CDLL(None).syscall(ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA) == 0


def act_dtypes() -> tuple[DType, ...]:
    """Return the dtypes of activations, the one that this processor is fastest with first."""
    return (DType.BF16, DType.F32) if has_matrix_units(arch()) else (DType.F32, DType.BF16)


def output_layer_workspace(sizes: Mapping[str, int], act: DType) -> int:
    """Return the elements of OUTPUT_LAYER_TRAINING's `exponentials` for N tokens and a vocabulary of V.

    They are a DualOperand, whose sides are padded. AMX stores an f32 as three bf16, which take 1.5 elements.
    """
    sides = ("N", OPERAND["OPERAND_COLUMNS"]), ("V", OPERAND["OPERAND_ROWS"])
    tokens, rows = (-(-sizes[name] // step) * step for name, step in sides)
    return tokens * rows * OPERAND["BF16_SPLITS"] // 2 if act is DType.F32 else tokens * rows


def traits(act_dtypes: tuple[DType, ...]) -> Traits:
    """Return how a CPU computes that is fastest with the first of these dtypes."""
    return Traits(act_dtypes, CACHE_BYTES, True, {OUTPUT_LAYER_TRAINING: output_layer_workspace})


@functools.cache
def _library(source: Path, *macros: tuple[str, int]) -> ctypes.CDLL:
    """Return a source compiled with these macros."""
    return load_library(source, dict(macros))


@functools.cache
def _compile(wanted: tuple[tuple[Path, tuple[tuple[str, int], ...]], ...], threads: int) -> None:
    """Compile sources with their macros. Plans of the same kernels look into the cache of kernels only once."""
    compile_libraries([(source, dict(macros)) for source, macros in wanted], threads)


class Call(ctypes.Structure):
    """A kernel's address and that of its arguments: see kernels/cpu/runtime/replay.cpp."""

    _fields_ = [("kernel", ctypes.c_void_p), ("slots", ctypes.c_void_p)]


class CpuDevice:
    """The host's cores as a device; threads: how many the kernels use. Results do not depend on it.

    group: the processes that train one model, of which this is one.
    """

    backend = "cpu"
    communicator: Communicator

    def __init__(self, threads: int, group: ProcessGroup | None = None):
        self.name = f"cpu {platform.machine()} ({threads} thread{'s' if threads > 1 else ''})"
        self.compiler = host_compiler_version().partition("\n")[0]
        self.traits = traits(act_dtypes())
        self.communicator = HostCommunicator(group or ProcessGroup())
        self._allocated_bytes, self._threads = 0, threads
        _library(CPU / "runtime" / "threads.cpp").set_thread_count(ctypes.c_int64(threads))

    def allocate(self, size_bytes: int) -> tuple[int, np.ndarray]:
        if self._allocated_bytes + size_bytes > physical_bytes():  # Linux would promise it, and kill who uses it
            raise UserError(
                f"{self.name}: out of memory: asked for {size_bytes:,} bytes beside {self._allocated_bytes:,}, this "
                f"machine has {physical_bytes():,}; lower training.batch_sequences and raise "
                "training.accumulation_steps, or make the model smaller"
            )
        memory = np.zeros(size_bytes + 64, np.uint8)
        self._count(size_bytes)
        weakref.finalize(memory, self._count, -size_bytes)
        return memory.ctypes.data + -memory.ctypes.data % 64, memory

    def free_bytes(self) -> int:
        return physical_bytes() - self._allocated_bytes

    def write(self, tensor: Tensor, values: NDArray[Any]) -> None:
        check_transfer(tensor, values)
        source = np.ascontiguousarray(values)
        ctypes.memmove(tensor.address, source.ctypes.data, source.nbytes)

    def read(self, tensor: Tensor) -> NDArray[Any]:
        values = np.empty(tensor.shape, tensor.dtype.numpy)
        ctypes.memmove(values.ctypes.data, tensor.address, values.nbytes)
        return values

    def compile(self, launches: Sequence[Launch]) -> None:
        kernels = [launch for launch in launches if launch.op not in COLLECTIVES]
        _compile(tuple(dict.fromkeys(map(_library_of, kernels))), self._threads)

    def prepare(self, launches: Sequence[Launch]) -> Callable[[], None]:
        groups = itertools.groupby(launches, key=lambda launch: launch.op in COLLECTIVES)
        parts = [self.communicator.bind(list(each)) if far else self._bind(list(each)) for far, each in groups]
        if len(parts) == 1:
            return parts[0]

        def run_all() -> None:
            for part in parts:
                part()

        return run_all

    def _bind(self, launches: Sequence[Launch]) -> Callable[[], None]:
        """Compile the kernels of launches; return a function that calls them."""
        self.compile(launches)
        functions, slots = [_function(launch) for launch in launches], [_slots(launch) for launch in launches]
        calls = (Call * len(launches))()
        for call, function, arguments in zip(calls, functions, slots, strict=True):
            call.kernel = ctypes.cast(function, ctypes.c_void_p).value
            call.slots = ctypes.addressof(arguments)
        replay, count = _library(CPU / "runtime" / "replay.cpp").replay, ctypes.c_int64(len(launches))

        def replay_with_its_memory(keep: Any = (slots, list(launches))) -> None:
            replay(calls, count)

        return replay_with_its_memory

    def _count(self, size_bytes: int) -> None:
        self._allocated_bytes += size_bytes


def macros_of(variant: Variant, act: DType) -> dict[str, int]:
    """Return the macros that a CPU's row is compiled with for a dtype: kernels/cpu/select/*.h choose files by them."""
    return {"ACT_BF16": int(act is DType.BF16), **variant.macros}


def _library_of(launch: Launch) -> tuple[Path, tuple[tuple[str, int], ...]]:
    """Return the source of a launch's kernel and its macros."""
    variant = find_variant(launch.op, arch(), launch.act, {})
    return KERNELS / variant.source_of(launch.op), tuple(macros_of(variant, launch.act).items())


def _function(launch: Launch) -> Any:
    """Return the C function that calls a launch's kernel."""
    source, macros = _library_of(launch)
    return getattr(_library(source, *macros), f"call_{launch.op.name}")


def _slots(launch: Launch) -> ctypes.Array[ctypes.c_uint64]:
    """Return a launch's arguments in the types of the contract, eight bytes each."""
    values = launch.c_arguments()
    slots = (ctypes.c_uint64 * len(values))()
    for place, value in enumerate(values):
        ctypes.memmove(ctypes.addressof(slots) + 8 * place, ctypes.byref(value), ctypes.sizeof(value))
    return slots


def physical_bytes() -> int:
    """Return the size of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
