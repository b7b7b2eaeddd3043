"""CUDA's driver calls, through cuda-bindings: NVRTC, modules, one stream, graphs."""

import ctypes
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hipgpt.base.errors import UserError
from hipgpt.compute.backends.driver import OutOfMemory
from hipgpt.compute.backends.launch_shapes import Grid
from hipgpt.compute.device import DeviceAbsent

try:
    from cuda.bindings import driver, nvrtc
except ImportError as error:
    raise DeviceAbsent("device cuda: cuda-python is not installed; pip install -e '.[cuda]'") from error

PORTABLE_CLUSTER = 8  # blocks


def _checked(result: tuple[Any, ...], call: str) -> Any:
    """Return a call's results without its status. Raises UserError with the driver's words."""
    status, *values = result
    if status != driver.CUresult.CUDA_SUCCESS:
        _, words = driver.cuGetErrorString(status)
        raise UserError(f"{call}: {status.name}: {words.decode() if words else 'unknown error'}")
    return values[0] if len(values) == 1 else values


def _absent(error: Exception) -> DeviceAbsent:
    return DeviceAbsent(f"device cuda: {error}; install NVIDIA's driver, or choose another device")


def device_count() -> int:
    """Return the number of NVIDIA GPUs. Raises DeviceAbsent if there is no driver."""
    try:
        _checked(driver.cuInit(0), "cuInit")
        return int(_checked(driver.cuDeviceGetCount(), "cuDeviceGetCount"))
    except (RuntimeError, UserError) as error:
        raise _absent(error) from error


class CudaDriver:
    """One NVIDIA GPU. Raises DeviceAbsent if there is no driver or no such device."""

    backend, wave = "cuda", 32
    side_by_side = True
    checks_kernels = False  # its kernels run on NVIDIA's chips in the project's own tests

    def __init__(self, index: int):
        try:
            _checked(driver.cuInit(0), "cuInit")
            device = _checked(driver.cuDeviceGet(index), f"cuDeviceGet({index})")
        except (RuntimeError, UserError) as error:  # RuntimeError: the library itself is absent
            raise _absent(error) from error
        self._context = _checked(driver.cuDevicePrimaryCtxRetain(device), "cuDevicePrimaryCtxRetain")
        _checked(driver.cuCtxSetCurrent(self._context), "cuCtxSetCurrent")
        attribute = driver.CUdevice_attribute
        major, minor, self.multiprocessors = (
            int(_checked(driver.cuDeviceGetAttribute(each, device), "cuDeviceGetAttribute"))
            for each in (
                attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
                attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
                attribute.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
            )
        )
        self.arch = f"sm_{major}{minor}" + "a" * ((major, minor) == (9, 0))  # a: has wgmma, which later chips lack
        self.name = _checked(driver.cuDeviceGetName(100, device), "cuDeviceGetName").split(b"\0")[0].decode()
        self.compiler = "nvrtc {}.{}".format(*_checked_nvrtc(nvrtc.nvrtcVersion(), "nvrtcVersion"))
        self._stream = _checked(driver.cuStreamCreate(0), "cuStreamCreate")
        untimed = driver.CUevent_flags.CU_EVENT_DISABLE_TIMING
        self._event = _checked(driver.cuEventCreate(untimed), "cuEventCreate")

    @property
    def stream(self) -> int:
        return int(self._stream)

    def compile(self, name: str, source: str, headers: Mapping[str, str], macros: Mapping[str, int]) -> bytes:
        return compile_cuda(name, source, headers, macros, self.arch)

    def load(self, image: bytes) -> Any:
        return _checked(driver.cuModuleLoadData(image), "cuModuleLoadData")

    def function(self, module: Any, name: str, shared_bytes: int = 0) -> Any:
        function = _checked(driver.cuModuleGetFunction(module, name.encode()), f"cuModuleGetFunction({name})")
        limit = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        # never lowered, because another plan may launch the same kernel with more
        if shared_bytes > _checked(driver.cuFuncGetAttribute(limit, function), f"cuFuncGetAttribute({name})"):
            _checked(
                driver.cuFuncSetAttribute(function, limit, shared_bytes), f"cuFuncSetAttribute({name}, {shared_bytes})"
            )
        # CUDA refuses larger clusters unless a kernel allows them, because some chips have no room for them
        width = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_WIDTH
        if _checked(driver.cuFuncGetAttribute(width, function), f"cuFuncGetAttribute({name})") > PORTABLE_CLUSTER:
            allowed = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED
            _checked(driver.cuFuncSetAttribute(function, allowed, 1), f"cuFuncSetAttribute({name}, clusters)")
        return name, function

    def allocate(self, size_bytes: int) -> int:
        status, address = driver.cuMemAlloc(size_bytes)
        if status == driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
            raise OutOfMemory
        return int(_checked((status, address), "cuMemAlloc"))

    def free_bytes(self) -> int:
        return int(_checked(driver.cuMemGetInfo(), "cuMemGetInfo")[0])

    def free(self, address: int) -> None:
        _checked(driver.cuMemFree(address), "cuMemFree")

    def clear(self, address: int, size_bytes: int, stream: int | None = None) -> None:
        on = self._stream if stream is None else stream
        _checked(driver.cuMemsetD8Async(address, 0, size_bytes, on), "cuMemsetD8Async")

    def new_stream(self) -> int:
        return int(_checked(driver.cuStreamCreate(driver.CUstream_flags.CU_STREAM_NON_BLOCKING), "cuStreamCreate"))

    def order(self, first: int, then: int) -> None:
        _checked(driver.cuEventRecord(self._event, first), "cuEventRecord")
        _checked(driver.cuStreamWaitEvent(then, self._event, 0), "cuStreamWaitEvent")

    def upload(self, address: int, values: np.ndarray) -> None:
        source = values.ctypes.data  # pageable, so that the call returns when it has been read
        _checked(driver.cuMemcpyHtoDAsync(address, source, values.nbytes, self._stream), "cuMemcpyHtoDAsync")

    def download(self, values: np.ndarray, address: int) -> None:
        target = values.ctypes.data
        _checked(driver.cuMemcpyDtoHAsync(target, address, values.nbytes, self._stream), "cuMemcpyDtoHAsync")
        _checked(driver.cuStreamSynchronize(self._stream), "cuStreamSynchronize")

    def finished(self) -> bool:
        (status,) = driver.cuStreamQuery(self._stream)
        if status == driver.CUresult.CUDA_ERROR_NOT_READY:
            return False
        _checked((status,), "cuStreamQuery")
        return True

    def tensor_map(self, address: int, rows: int, columns: int, box_rows: int) -> Any:
        tensor_map = _checked(
            driver.cuTensorMapEncodeTiled(
                driver.CUtensorMapDataType.CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                2,
                address,
                [driver.cuuint64_t(columns), driver.cuuint64_t(rows)],
                [driver.cuuint64_t(2 * columns)],
                [driver.cuuint32_t(64), driver.cuuint32_t(box_rows)],
                [driver.cuuint32_t(1), driver.cuuint32_t(1)],
                driver.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE,
                driver.CUtensorMapSwizzle.CU_TENSOR_MAP_SWIZZLE_128B,
                driver.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                driver.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            ),
            f"cuTensorMapEncodeTiled({rows} x {columns} in boxes of {box_rows} x 64)",
        )
        return (ctypes.c_uint64 * 16).from_buffer_copy(ctypes.string_at(tensor_map.getPtr(), 128))

    def launch(self, function: Any, grid: Grid, threads: int, shared_bytes: int, arguments: Sequence[Any]) -> None:
        name, handle = function
        pointers = _addresses(arguments)
        address = ctypes.addressof(pointers)
        launched = driver.cuLaunchKernel(handle, *grid, threads, 1, 1, shared_bytes, self._stream, address, 0)
        _checked(launched, f"{name}: cuLaunchKernel (grid {grid}, {threads} threads)")

    def launch_together(
        self, function: Any, grid: Grid, threads: int, shared_bytes: int, arguments: Sequence[Any]
    ) -> None:
        name, handle = function
        pointers = _addresses(arguments)
        address = ctypes.addressof(pointers)
        launched = driver.cuLaunchCooperativeKernel(handle, *grid, threads, 1, 1, shared_bytes, self._stream, address)
        _checked(launched, f"{name}: cuLaunchCooperativeKernel (grid {grid}, {threads} threads)")

    def capture(
        self, groups: Sequence[Sequence[Callable[[], None]]], earlier: Sequence[Sequence[int]]
    ) -> Callable[[], None]:
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        _checked(driver.cuStreamBeginCapture(self._stream, mode), "cuStreamBeginCapture")
        last_nodes: list[list[Any]] = []  # of each group
        for group, numbers in zip(groups, earlier, strict=True):
            self._continue_after([node for number in numbers for node in last_nodes[number]])
            for call in group:
                call()
            last_nodes.append(self._captured_last())
        graph = _checked(driver.cuStreamEndCapture(self._stream), "cuStreamEndCapture")
        executable = _checked(driver.cuGraphInstantiate(graph, 0), "cuGraphInstantiate")
        return lambda: _checked(driver.cuGraphLaunch(executable, self._stream), "cuGraphLaunch")

    def _continue_after(self, nodes: list[Any]) -> None:
        """Let the next launch that is captured wait for these nodes of the graph only."""
        flag = driver.CUstreamUpdateCaptureDependencies_flags.CU_STREAM_SET_CAPTURE_DEPENDENCIES
        # CUDA 12 has the function with these arguments under another name
        update = getattr(driver, "cuStreamUpdateCaptureDependencies_v2", driver.cuStreamUpdateCaptureDependencies)
        _checked(update(self._stream, nodes, None, len(nodes), flag), "cuStreamUpdateCaptureDependencies")

    def _captured_last(self) -> list[Any]:
        """Return the nodes of the graph that the last captured launches are."""
        return list(_checked(driver.cuStreamGetCaptureInfo(self._stream), "cuStreamGetCaptureInfo")[3])


def _addresses(arguments: Sequence[Any]) -> Any:
    """Return an array of the addresses of ctypes values."""
    return (ctypes.c_void_p * len(arguments))(*(ctypes.addressof(argument) for argument in arguments))


def compile_cuda(name: str, source: str, headers: Mapping[str, str], macros: Mapping[str, int], arch: str) -> bytes:
    """Compile one file with NVRTC, on any machine. Raises UserError with the compiler's log."""
    names, texts = [key.encode() for key in headers], [text.encode() for text in headers.values()]
    created = nvrtc.nvrtcCreateProgram(source.encode(), name.encode(), len(names), texts, names)
    program = _checked_nvrtc(created, "nvrtcCreateProgram")
    defined = [f"-D{key}={value}".encode() for key, value in macros.items()]
    # -default-device, because NVRTC 13.0 takes a generic lambda for a host function
    options = [f"--gpu-architecture={arch}".encode(), *defined, b"-std=c++17", b"-default-device"]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        log = b" " * _checked_nvrtc(nvrtc.nvrtcGetProgramLogSize(program), "nvrtcGetProgramLogSize")
        nvrtc.nvrtcGetProgramLog(program, log)
        raise UserError(f"{name}: NVRTC for {arch}:", f"{log.decode().rstrip(chr(0))}{_remedy(arch)}")
    image: bytes = b" " * _checked_nvrtc(nvrtc.nvrtcGetCUBINSize(program), "nvrtcGetCUBINSize")
    _checked_nvrtc(nvrtc.nvrtcGetCUBIN(program, image), "nvrtcGetCUBIN")
    return image


def _remedy(arch: str) -> str:
    """Return what to do if this NVRTC knows no such architecture."""
    known = _checked_nvrtc(nvrtc.nvrtcGetSupportedArchs(), "nvrtcGetSupportedArchs")
    if int(re.sub(r"\D", "", arch)) >= min(known):
        return ""
    return f"this NVRTC knows none before sm_{min(known)}: pip install 'cuda-python<13' nvidia-cuda-nvrtc-cu12"


def _checked_nvrtc(result: tuple[Any, ...], call: str) -> Any:
    status, *values = result
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise UserError(f"{call}: {status.name}")
    return values[0] if len(values) == 1 else values
