"""What the stand-in must notice for a pass on it to mean something; and HipDriver's own duties, which need a device.

Run by tests/test_fakehip.py, in a process that loads the stand-in as its HIP.
"""

import ctypes
import os

import numpy as np
import pytest

from hipgpt.backends.device import DeviceAbsent, open_device
from hipgpt.backends.hip import HipDriver
from hipgpt.errors import UserError

pytestmark = pytest.mark.gpu
ELEMENTS = 64  # of x and y: a wave's at most
WAVE = 64 if os.environ["FAKEHIP_CHIPS"].startswith("gfx9") else 32
BEYOND = "4 bytes where it may not, at byte 256 of an allocation of 256 bytes"
WAITS = "threads wait for ones that do not come"


@pytest.fixture(scope="module")
def driver():
    return HipDriver(0)


class Kernel:
    """`void k(float* y, const float* x, int n)` with a body, and memory for it: x = 0, 1, 2 ..., y = -1."""

    def __init__(self, driver, body, threads=WAVE):
        source = f'extern "C" __global__ void k(float* y, const float* x, int n) {{\n{body}\n}}'
        module = driver.load(driver.compile("k.hip", source, {}))
        self.driver, self.threads, self.function = driver, threads, driver.function(module, "k")
        self.y, self.x = driver.allocate(4 * ELEMENTS), driver.allocate(4 * ELEMENTS)
        driver.upload(self.x, np.arange(ELEMENTS, dtype=np.float32))
        driver.upload(self.y, np.full(ELEMENTS, -1, np.float32))

    def launch(self, n=ELEMENTS):
        arguments = [ctypes.c_void_p(self.y), ctypes.c_void_p(self.x), ctypes.c_int32(n)]
        self.driver.launch(self.function, (1, 1, 1), self.threads, 0, arguments)

    def result(self):
        values = np.empty(ELEMENTS, np.float32)
        self.driver.download(values, self.y)
        return values[: self.threads]


def test_device_is_the_stand_in(driver):
    assert (driver.name, driver.wave) == ("stand-in", WAVE)
    assert driver.arch == {32: "gfx1100", 64: "gfx90a"}[WAVE]  # without the switches that the chip's full name has


@pytest.mark.parametrize("body, words", [
    ("y[0] = x[n];", f"k, block (0, 0, 0), thread (0, 0, 0): reads {BEYOND}"),
    ("if (threadIdx.x == 3) y[n] = 1;", f"k, block (0, 0, 0), thread (3, 0, 0): writes {BEYOND}"),
    ("y[-1] = 1;", "writes 4 bytes where it may not"),
    ("__shared__ float s[8]; s[threadIdx.x] = 1;", "writes 4 bytes where it may not"),
    ("__shared__ float s[8], t[8]; t[0] = s[n / 8] + s[0];", "reads 4 bytes where it may not"),
    ("if (threadIdx.x < 5) __syncthreads();", WAITS),
    ("if (threadIdx.x != 5) __builtin_amdgcn_wave_barrier();", WAITS),
    ("if (threadIdx.x != 5) y[threadIdx.x] = __shfl_xor(1.0f, 1, WAVE);", WAITS),
    ("if (threadIdx.x < 8) y[threadIdx.x] = __shfl_xor(1.0f, 1, WAVE); else __syncthreads();", WAITS),
])  # fmt: skip
def test_what_a_kernel_may_not_do_is_refused(driver, body, words):
    kernel = Kernel(driver, body)
    with pytest.raises(UserError) as refused:
        kernel.launch()
    assert words in str(refused.value)
    assert "hipModuleLaunchKernel (grid (1, 1, 1)" in str(refused.value)


def test_a_missing_barrier_changes_the_result(driver):
    kernel = Kernel(driver, "__shared__ float s; if (threadIdx.x == 0) s = 1; y[threadIdx.x] = s;")
    results = []
    for _ in range(2):  # threads run upwards and downwards in turn
        kernel.launch()
        results.append((kernel.result() == 1).all())
    assert not all(results)


def test_a_missing_meeting_of_a_wave_changes_the_result(driver):
    kernel = Kernel(driver, "__shared__ float s[64]; s[threadIdx.x] = 1; y[threadIdx.x] = s[threadIdx.x ^ 1];")
    kernel.launch()
    assert (kernel.result() != 1).any()


def test_barriers_order_shared_memory(driver):
    body = "__shared__ float s[64]; s[threadIdx.x] = x[threadIdx.x]; {} y[threadIdx.x] = s[threadIdx.x ^ 1];"
    for barrier in ("__syncthreads();", "__builtin_amdgcn_wave_barrier();"):
        kernel = Kernel(driver, body.format(barrier))
        kernel.launch()
        np.testing.assert_array_equal(kernel.result(), np.arange(WAVE) ^ 1)


@pytest.mark.parametrize("width", [2, 16, WAVE])
def test_shuffles_reach_across_the_width_asked_for(driver, width):
    kernel = Kernel(driver, f"y[threadIdx.x] = __shfl_xor(x[threadIdx.x], {width - 1}, {width});", threads=64)
    kernel.launch()
    np.testing.assert_array_equal(kernel.result(), np.arange(64) ^ (width - 1))


def test_memory_starts_as_nan(driver):
    values = np.zeros(3, np.float32)
    driver.download(values, driver.allocate(12))
    kernel = Kernel(driver, "__shared__ float s; y[threadIdx.x] = s;")
    kernel.launch()
    assert np.isnan(values).all()
    assert np.isnan(kernel.result()).all()


def test_freed_memory_is_out_of_bounds(driver):
    kernel = Kernel(driver, "y[0] = x[0];")
    driver.free(kernel.x)
    with pytest.raises(UserError, match="reads 4 bytes where it may not"):
        kernel.launch()


def test_a_graph_computes_when_it_is_launched(driver):
    kernel = Kernel(driver, "y[threadIdx.x] += 2;")
    replay = driver.capture(lambda: (kernel.launch(), kernel.launch()))
    assert (kernel.result() == -1).all()
    replay()
    replay()
    assert (kernel.result() == 7).all()


def test_an_argument_that_is_no_ctypes_value_is_refused(driver):
    kernel = Kernel(driver, "")
    with pytest.raises(TypeError, match="got 64, expected one of"):
        driver.launch(kernel.function, (1, 1, 1), 1, 0, [ctypes.c_void_p(kernel.y), ctypes.c_void_p(kernel.x), 64])


def test_an_argument_of_another_size_is_refused(driver):
    kernel = Kernel(driver, "")
    arguments = [ctypes.c_void_p(kernel.y), ctypes.c_void_p(kernel.x), ctypes.c_int64(64)]
    with pytest.raises(UserError, match=r"hipModuleLaunchKernel .*: hipErrorInvalidValue: invalid argument"):
        driver.launch(kernel.function, (1, 1, 1), 1, 0, arguments)


def test_a_compile_error_names_the_file_and_the_line(driver):
    with pytest.raises(UserError, match=r"k.hip: HIPRTC for gfx.*HIPRTC_ERROR_COMPILATION\n(.*\n)*k.hip:2:.*nonsense"):
        Kernel(driver, "nonsense;")


def test_a_missing_kernel_is_named(driver):
    module = driver.load(driver.compile("k.hip", 'extern "C" __global__ void k() {}', {}))
    with pytest.raises(UserError, match=r"hipModuleGetFunction\(gelu\): hipErrorNotFound: named symbol not found"):
        driver.function(module, "gelu")


def test_too_large_an_allocation_says_what_is_free():
    with pytest.raises(UserError, match=r"out of memory: asked for 17,179,869,184 bytes, [\d,]+ are free; lower"):
        open_device("hip").allocate(1 << 34)


def test_a_device_that_is_not_there_is_absent():
    with pytest.raises(DeviceAbsent, match=r"hip: hipSetDevice\(1\): hipErrorInvalidDevice: invalid device ordinal"):
        open_device("hip:1")
