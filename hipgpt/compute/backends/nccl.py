"""Collectives between GPUs by NCCL or RCCL, which have the same C API: docs.nvidia.com/deeplearning/nccl."""

import ctypes
import functools
import importlib.util
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from hipgpt.base.errors import UserError
from hipgpt.compute.backends.driver import Driver
from hipgpt.compute.communicator import REDUCTIONS
from hipgpt.compute.launch import Launch
from hipgpt.compute.process_group import SECONDS_TO_ANSWER, ProcessGroup
from hipgpt.compute.tensor import DType

SUCCESS, IN_PROGRESS, SUM = 0, 7, 0  # ncclResult_t, ncclRedOp_t
DATA_TYPES = {DType.F32: 7, DType.BF16: 9}  # ncclDataType_t
# by backend: the library, and what to do without it
LIBRARIES = {
    "cuda": ("libnccl.so.2", "pip install -e '.[nccl]'"),
    "hip": ("librccl.so.1", "install RCCL, which is a part of ROCm, or set ROCM_PATH"),
}
PACKAGE_OF_NCCL = "nvidia.nccl"
POLL_SECONDS = 0.0005


class UniqueId(ctypes.Structure):
    """ncclUniqueId: rank 0 makes it, and all ranks need it to meet."""

    _fields_ = [("internal", ctypes.c_char * 128)]


class NcclCommunicator:
    """Collectives on a stream of their own, which run beside the launches on the driver's stream until they are joined.

    A graph that captures the driver's stream captures this one too. NCCL adds in an order of its own, which is the same
    in every run on the same machines. Raises UserError if there is no such library, or if the ranks cannot meet.
    """

    def __init__(self, driver: Driver, group: ProcessGroup):
        self.group, self._driver, self._library = group, driver, _library(driver.backend)
        self._stream = driver.new_stream()
        unique = UniqueId()
        if group.leads:
            self._check(self._library.ncclGetUniqueId(ctypes.byref(unique)), "ncclGetUniqueId")
        bytes_of_id = np.frombuffer(bytearray(unique), np.uint8)
        group.share(bytes_of_id)
        self._communicator = ctypes.c_void_p()
        where = f"ncclCommInitRank({group.rank} of {group.size})"
        met = self._library.ncclCommInitRank(
            ctypes.byref(self._communicator), group.size, UniqueId.from_buffer_copy(bytes_of_id.tobytes()), group.rank
        )
        self._check(met, where)

    def bind(self, launches: Sequence[Launch]) -> Callable[[], None]:
        """Return a function that puts these collectives on their stream as one group, after all earlier launches."""
        others = (each for each in launches if each.scalars["root"] != self.group.rank)
        cleared = [launch.tensor("x") for launch in others if launch.op in REDUCTIONS]

        def run() -> None:
            self._driver.order(self._driver.stream, self._stream)
            self._check(self._library.ncclGroupStart(), "ncclGroupStart")
            for launch in launches:
                self._start(launch)
            self._check(self._library.ncclGroupEnd(), "ncclGroupEnd")
            for x in cleared:
                self._driver.clear(x.address, x.size_bytes, self._stream)

        return run

    def join(self) -> None:
        """Make later launches on the driver's stream wait for the collectives that were started."""
        self._driver.order(self._stream, self._driver.stream)

    def wait(self, finished: Callable[[], bool]) -> None:
        """Wait until the stream is finished. Raises UserError if another rank has failed or does not answer."""
        deadline, state = time.monotonic() + SECONDS_TO_ANSWER, ctypes.c_int()
        while not finished():
            self._check(
                self._library.ncclCommGetAsyncError(self._communicator, ctypes.byref(state)), "ncclCommGetAsyncError"
            )
            self._check(state.value, "a collective")
            if time.monotonic() > deadline:
                raise UserError(
                    f"rank {self.group.rank}: a collective has not ended after {SECONDS_TO_ANSWER:.0f} s; end the "
                    "processes of all ranks, and start the same command again"
                )
            time.sleep(POLL_SECONDS)

    def _start(self, launch: Launch) -> None:
        x, root, library = launch.tensor("x"), int(launch.scalars["root"]), self._library
        kind, stream = DATA_TYPES[x.dtype], ctypes.c_void_p(self._stream)
        memory, count = ctypes.c_void_p(x.address), ctypes.c_size_t(x.elements)
        to = root, self._communicator, stream
        if launch.op in REDUCTIONS:
            self._check(library.ncclReduce(memory, memory, count, kind, SUM, *to), f"ncclReduce({x.name})")
        else:
            self._check(library.ncclBroadcast(memory, memory, count, kind, *to), f"ncclBroadcast({x.name})")

    def _check(self, status: int, call: str) -> None:
        if status not in (SUCCESS, IN_PROGRESS):
            words = self._library.ncclGetErrorString(status).decode()
            raise UserError(f"rank {self.group.rank}: {call}: {words}; NCCL_DEBUG=INFO shows more")


@functools.cache
def _library(backend: str) -> ctypes.CDLL:
    name, remedy = LIBRARIES[backend]
    try:
        path = _path_in(PACKAGE_OF_NCCL, name) if backend == "cuda" else _path_in_rocm(name)
        library = ctypes.CDLL(path or name)
    except OSError as error:
        raise UserError(f"devices: several GPUs need {name}: {error}; {remedy}") from error
    library.ncclGetErrorString.restype = ctypes.c_char_p
    library.ncclCommInitRank.argtypes = [ctypes.c_void_p, ctypes.c_int, UniqueId, ctypes.c_int]
    return library


def _path_in(package: str, name: str) -> str | None:
    """Return the path of a library in a Python package that may be installed."""
    try:
        found = importlib.util.find_spec(package)
    except ModuleNotFoundError:  # the package above it
        return None
    folders = found.submodule_search_locations if found else None
    return next((str(path) for folder in folders or () if (path := Path(folder, "lib", name)).is_file()), None)


def _path_in_rocm(name: str) -> str | None:
    """Return RCCL's path in the ROCm that hip-python loads HIP from; None before hip-python 10, or without a folder.

    Raises OSError if some of ROCm's Python packages are missing.
    """
    try:
        from rocm.bindings.util.paths import get_library_path
    except ImportError:
        return None
    try:
        rccl, hip = (Path(os.fsdecode(get_library_path(library))) for library in ("rccl", "amdhip64"))
    except Exception as error:  # rocm_sdk has raised FileNotFoundError, and UnboundLocalError for a missing package
        raise OSError(f"hip-python cannot find it: {error}") from error
    return next((str(path) for path in (rccl, hip.with_name(name)) if path.is_absolute() and path.is_file()), None)
