"""HIP's driver calls, through hip-python: HIPRTC, modules, one stream, graphs."""

import ctypes
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hipgpt.base.errors import UserError
from hipgpt.compute.backends.driver import OutOfMemory
from hipgpt.compute.backends.launch_shapes import Grid
from hipgpt.compute.device import DeviceAbsent

try:
    from rocm.bindings import hip, hiprtc
except ImportError:
    try:
        from hip import hip, hiprtc  # the name in hip-python before version 10
    except ImportError as error:
        raise DeviceAbsent("device hip: hip-python is not installed; pip install 'hip-python>=10'") from error

PASSED_BY_VALUE = (ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32, ctypes.c_float)


def _checked(result: tuple[Any, ...], call: str) -> Any:
    """Return a call's results without its status. Raises UserError with the driver's or HIPRTC's words."""
    status, *values = result
    if status != 0:  # hipSuccess and HIPRTC_SUCCESS
        runtime = isinstance(status, hip.hipError_t)
        _, words = hip.hipGetErrorString(status) if runtime else hiprtc.hiprtcGetErrorString(status)
        raise UserError(f"{call}: {status.name}: {words}")
    return values[0] if len(values) == 1 else values


def _absent(error: Exception) -> DeviceAbsent:
    return DeviceAbsent(f"device hip: {error}; install ROCm, set ROCM_PATH, or choose another device")


def device_count() -> int:
    """Return the number of AMD GPUs. Raises DeviceAbsent if there is no HIP runtime."""
    try:
        return int(_checked(hip.hipGetDeviceCount(), "hipGetDeviceCount"))
    except (RuntimeError, UserError) as error:
        raise _absent(error) from error


class HipDriver:
    """One AMD GPU. Raises DeviceAbsent if there is no HIP runtime or no such device."""

    backend = "hip"
    checks_kernels = True

    def __init__(self, index: int):
        try:
            _checked(hip.hipInit(0), "hipInit")
            version = _checked(hip.hipRuntimeGetVersion(), "hipRuntimeGetVersion")
            major, minor = _checked(hiprtc.hiprtcVersion(), "hiprtcVersion")
            _checked(hip.hipSetDevice(index), f"hipSetDevice({index})")
        except (RuntimeError, UserError) as error:
            # RuntimeError: hip-python imports without ROCm and looks for its libraries when first called
            raise _absent(error) from error
        properties = _checked(hip.hipGetDeviceProperties(index), f"hipGetDeviceProperties({index})")
        self.name, self.wave = properties.name, properties.warpSize
        self.multiprocessors = properties.multiProcessorCount
        self._target = properties.gcnArchName  # with its feature switches: gfx90a:sramecc+:xnack-
        self.arch = self._target.split(":")[0]
        self.compiler = f"hiprtc {major}.{minor}, HIP {version}, {self._target}"
        self._stream = _checked(hip.hipStreamCreate(), "hipStreamCreate")
        untimed = hip.hipEventDisableTiming
        self._event = _checked(hip.hipEventCreateWithFlags(untimed), "hipEventCreateWithFlags")

    @property
    def stream(self) -> int:
        return int(self._stream)

    def compile(self, name: str, source: str, headers: Mapping[str, str], macros: Mapping[str, int]) -> bytes:
        return compile_hip(name, source, headers, macros, self._target)

    def load(self, image: bytes) -> Any:
        return _checked(hip.hipModuleLoadData(image), "hipModuleLoadData"), image  # HIP may read the image later

    def function(self, module: Any, name: str, shared_bytes: int = 0) -> Any:
        return name, _checked(hip.hipModuleGetFunction(module[0], name.encode()), f"hipModuleGetFunction({name})")

    def allocate(self, size_bytes: int) -> int:
        status, address = hip.hipMalloc(size_bytes)
        if status == hip.hipError_t.hipErrorOutOfMemory:
            raise OutOfMemory
        return int(_checked((status, address), "hipMalloc"))

    def free_bytes(self) -> int:
        return int(_checked(hip.hipMemGetInfo(), "hipMemGetInfo")[0])

    def free(self, address: int) -> None:
        _checked(hip.hipFree(address), "hipFree")

    def clear(self, address: int, size_bytes: int, stream: int | None = None) -> None:
        on = self._stream if stream is None else stream
        _checked(hip.hipMemsetAsync(address, 0, size_bytes, on), "hipMemsetAsync")

    def new_stream(self) -> int:
        return int(_checked(hip.hipStreamCreateWithFlags(hip.hipStreamNonBlocking), "hipStreamCreateWithFlags"))

    def order(self, first: int, then: int) -> None:
        _checked(hip.hipEventRecord(self._event, first), "hipEventRecord")
        _checked(hip.hipStreamWaitEvent(then, self._event, 0), "hipStreamWaitEvent")

    def upload(self, address: int, values: np.ndarray) -> None:
        source = values.ctypes.data  # pageable, so that the call returns when it has been read
        _checked(hip.hipMemcpyHtoDAsync(address, source, values.nbytes, self._stream), "hipMemcpyHtoDAsync")

    def download(self, values: np.ndarray, address: int) -> None:
        target = values.ctypes.data
        _checked(hip.hipMemcpyDtoHAsync(target, address, values.nbytes, self._stream), "hipMemcpyDtoHAsync")
        _checked(hip.hipStreamSynchronize(self._stream), "hipStreamSynchronize")

    def finished(self) -> bool:
        (status,) = hip.hipStreamQuery(self._stream)
        if status == hip.hipError_t.hipErrorNotReady:
            return False
        _checked((status,), "hipStreamQuery")
        return True

    def tensor_map(self, address: int, rows: int, columns: int, box_rows: int) -> Any:
        raise NotImplementedError("AMD's chips have no such copy engine, so no row of variants.py for them asks for it")

    def launch(self, function: Any, grid: Grid, threads: int, shared_bytes: int, arguments: Sequence[Any]) -> None:
        """Raises TypeError unless arguments are ctypes values: hip-python would pack an int as a pointer of 8 bytes."""
        name, handle = function
        where = f"{name}: hipModuleLaunchKernel (grid {grid}, {threads} threads)"
        for argument in arguments:
            if type(argument) not in PASSED_BY_VALUE:
                raise TypeError(f"{where}: got {argument!r}, expected one of {PASSED_BY_VALUE}")
        packed = tuple(arguments)
        launched = hip.hipModuleLaunchKernel(handle, *grid, threads, 1, 1, shared_bytes, self._stream, None, packed)
        _checked(launched, where)

    def launch_together(
        self, function: Any, grid: Grid, threads: int, shared_bytes: int, arguments: Sequence[Any]
    ) -> None:
        raise NotImplementedError("no row of variants.py for AMD's chips has blocks that wait for each other")

    def capture(
        self, groups: Sequence[Sequence[Callable[[], None]]], earlier: Sequence[Sequence[int]]
    ) -> Callable[[], None]:
        mode = hip.hipStreamCaptureMode.hipStreamCaptureModeThreadLocal
        _checked(hip.hipStreamBeginCapture(self._stream, mode), "hipStreamBeginCapture")
        for call in itertools.chain(*groups):
            call()
        graph = _checked(hip.hipStreamEndCapture(self._stream), "hipStreamEndCapture")
        executable = _checked(hip.hipGraphInstantiateWithFlags(graph, 0), "hipGraphInstantiateWithFlags")
        _checked(hip.hipGraphDestroy(graph), "hipGraphDestroy")
        return Replay(executable, self._stream)


class Replay:
    """Launches a graph on a stream; the graph is destroyed with the last reference to this."""

    def __init__(self, executable: Any, stream: Any):
        self._executable, self._stream = executable, stream

    def __call__(self) -> None:
        _checked(hip.hipGraphLaunch(self._executable, self._stream), "hipGraphLaunch")

    def __del__(self) -> None:
        hip.hipGraphExecDestroy(self._executable)


def compile_hip(name: str, source: str, headers: Mapping[str, str], macros: Mapping[str, int], target: str) -> bytes:
    """Compile one file with HIPRTC for a target such as gfx1100 or gfx90a:xnack-. Raises UserError with its log."""
    names, texts = [key.encode() for key in headers], [text.encode() for text in headers.values()]
    created = hiprtc.hiprtcCreateProgram(source.encode(), name.encode(), len(names), texts, names)
    program = _checked(created, "hiprtcCreateProgram")
    defined = [f"-D{key}={value}".encode() for key, value in macros.items()]
    options = [f"--offload-arch={target}".encode(), *defined, b"-std=c++17", b"-O3"]
    (status,) = hiprtc.hiprtcCompileProgram(program, len(options), options)
    if status != hiprtc.hiprtcResult.HIPRTC_SUCCESS:
        log = bytearray(_checked(hiprtc.hiprtcGetProgramLogSize(program), "hiprtcGetProgramLogSize"))
        _checked(hiprtc.hiprtcGetProgramLog(program, log), "hiprtcGetProgramLog")
        raise UserError(f"{name}: HIPRTC for {target}: {status.name}", log.decode().rstrip(chr(0)))
    image = bytearray(_checked(hiprtc.hiprtcGetCodeSize(program), "hiprtcGetCodeSize"))
    _checked(hiprtc.hiprtcGetCode(program, image), "hiprtcGetCode")
    _checked(hiprtc.hiprtcDestroyProgram(program.createRef()), "hiprtcDestroyProgram")
    return bytes(image)
