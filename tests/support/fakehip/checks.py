"""What the stand-in must notice for a pass on it to mean something; and HipDriver's own duties, which need a device.

Run by tests/compute/test_fakehip.py, in a process that loads the stand-in as its HIP.
"""

import ctypes
import os

import numpy as np
import pytest

from hipgpt.base.errors import UserError
from hipgpt.compute.backends.hip import HipDriver
from hipgpt.compute.device import DeviceAbsent
from hipgpt.compute.open_device import open_device

pytestmark = pytest.mark.gpu
ELEMENTS = 64  # of x and y: a wave's at most
CHIP = os.environ["FAKEHIP_CHIPS"]
WAVE = 64 if CHIP.startswith("gfx9") else 32
BEYOND = "4 bytes where it may not, at byte 256 of an allocation of 256 bytes"
WAITS = "threads wait for ones that do not come"


@pytest.fixture(scope="module")
def driver():
    return HipDriver(0)


class Kernel:
    """`void k(float* y, const float* x, int n)` with a body, and memory for it: x = 0, 1, 2 ..., y = -1."""

    def __init__(self, driver, body, threads=WAVE):
        source = f'extern "C" __global__ void k(float* y, const float* x, int n) {{\n{body}\n}}'
        module = driver.load(driver.compile("k.hip", source, {}, {"WAVE": WAVE}))
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
    assert driver.arch == CHIP.split(":")[0]  # without the switches that the chip's full name has


@pytest.mark.parametrize("body, words", [
    ("if (threadIdx.x == 0) y[0] = x[n];", f"k, block (0, 0, 0), thread (0, 0, 0): reads {BEYOND}"),
    ("if (threadIdx.x == 3) y[n] = 1;", f"k, block (0, 0, 0), thread (3, 0, 0): writes {BEYOND}"),
    ("y[-1] = 1;", "writes 4 bytes where it may not"),
    ("y[0] = *(const float*)((const char*)x + n / 32);", "at 2 modulo 256, not at a multiple of 4, k.hip:2"),
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
    assert "k: hipModuleLaunchKernel (grid (1, 1, 1)" in str(refused.value)


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


def test_a_ballot_has_a_bit_of_each_lane(driver):
    kernel = Kernel(driver, "y[threadIdx.x] = __ffsll(__ballot(threadIdx.x % WAVE == 17)) - 1;")
    kernel.launch()
    assert (kernel.result() == 17).all()


def test_atomic_additions_count_every_thread_once(driver):
    body = "__shared__ int sum; if (threadIdx.x == 0) sum = 0; __syncthreads(); y[threadIdx.x] = atomicAdd(&sum, 1);"
    kernel = Kernel(driver, body, threads=64)
    kernel.launch()
    np.testing.assert_array_equal(np.sort(kernel.result()), np.arange(64))


# by chip: the call, how many elements a lane has of A and B and of C, and where these are in AMD's ISA documents
MATRIX_UNITS = {
    "gfx90a": ("mfma_f32_16x16x16bf16_1k(a, b, c, 0, 0, 0)", 4, 4, "l / 16 * 4", "l / 16 * 4 + e"),
    "gfx950": ("mfma_f32_16x16x32_bf16(a, b, c, 0, 0, 0)", 8, 4, "l / 16 * 8", "l / 16 * 4 + e"),
    "gfx1100": ("wmma_f32_16x16x16_bf16_w32(a, b, c)", 16, 8, "0", "2 * e + l / 16"),
    "gfx1201": ("wmma_f32_16x16x16_bf16_w32_gfx12(a, b, c)", 8, 8, "l / 16 * 8", "l / 16 * 8 + e"),
}
MATRIX_KERNEL = """
    typedef short Operand __attribute__((vector_size(2 * {terms})));
    typedef float Sum __attribute__((vector_size(4 * {sums})));
    const int l = threadIdx.x;
    Operand a, b;
    Sum c;
    // A[i][k] = 1 if k == (3 i + 1) % K, B[k][j] = k + j / 16; from k = 16 on 16 - k - j / 16
    for (int k = 0; k < {terms}; ++k) {{
        const int term = {first_term} + k;
        a[k] = term == (3 * (l % 16) + 1) % {depth} ? 0x3F80 : 0;
        b[k] = __float_as_int((term < 16 ? 1 : -1) * (term % 16 + l % 16 / 16.0f)) >> 16;
    }}
    for (int e = 0; e < {sums}; ++e) c[e] = 100.0f * ({row});
    {before}
    c = __builtin_amdgcn_{call};
    if (l == n)
        for (int e = 0; e < {sums}; ++e) y[{row}] = c[e];
"""


def matrix_kernel(driver, before=""):
    call, terms, sums, first_term, row = MATRIX_UNITS[driver.arch]
    values = {"call": call, "terms": terms, "sums": sums, "first_term": first_term, "row": row, "before": before}
    return Kernel(driver, MATRIX_KERNEL.format(**values, depth=depth(driver.arch)))


def depth(arch):
    """Return the k of a product."""
    return 32 if arch == "gfx950" else 16


has_matrix_units = pytest.mark.skipif(CHIP.split(":")[0] not in MATRIX_UNITS, reason=f"{CHIP} has no matrix units")


@has_matrix_units
@pytest.mark.parametrize("column", [0, 3, 15])
def test_a_matrix_unit_multiplies(driver, column):
    i = np.arange(16)
    k = (3 * i + 1) % depth(driver.arch)
    wanted = 100 * i + np.where(k < 16, 1, -1) * (k % 16 + column / 16)
    kernel = matrix_kernel(driver)
    for lane in range(column, WAVE, 16):
        kernel.launch(lane)
    np.testing.assert_array_equal(kernel.result()[:16], wanted)


@has_matrix_units
def test_a_matrix_unit_needs_its_whole_wave(driver):
    with pytest.raises(UserError, match=WAITS):
        matrix_kernel(driver, before="if (l == 5) return;").launch()


@pytest.mark.skipif(CHIP != "gfx1100", reason="the operands of other chips are not repeated")
def test_halves_of_a_wave_with_different_operands_are_refused(driver):
    with pytest.raises(UserError, match="the halves of a wave give a matrix unit different operands"):
        matrix_kernel(driver, before="if (l == 5) a[3] = 0x4000;").launch()


def test_another_chips_matrix_unit_does_not_compile(driver):
    other = next(call for chip, (call, *_) in MATRIX_UNITS.items() if chip != driver.arch)
    with pytest.raises(UserError, match="HIPRTC_ERROR_COMPILATION"):
        Kernel(driver, f"int a = 0, b = 0, c = 0; __builtin_amdgcn_{other};")


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
    replay = driver.capture([[kernel.launch], [kernel.launch]], [[], [0]])
    assert (kernel.result() == -1).all()
    replay()
    replay()
    assert (kernel.result() == 7).all()


def test_a_graph_is_destroyed_with_its_last_reference(driver):
    alive = ctypes.CDLL(f"{os.environ['ROCM_PATH']}/lib/libamdhip64.so").fakehip_graphs_alive
    kernel, before = Kernel(driver, "y[threadIdx.x] += 2;"), alive()
    replay = driver.capture([[kernel.launch]], [[]])
    assert alive() == before + 1
    del replay
    assert alive() == before


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
    module = driver.load(driver.compile("k.hip", 'extern "C" __global__ void k() {}', {}, {}))
    with pytest.raises(UserError, match=r"hipModuleGetFunction\(gelu\): hipErrorNotFound: named symbol not found"):
        driver.function(module, "gelu")


def test_too_large_an_allocation_says_what_is_free():
    with pytest.raises(UserError, match=r"out of memory: asked for 17,179,869,184 bytes, [\d,]+ are free; lower"):
        open_device("hip").allocate(1 << 34)


def test_a_device_that_is_not_there_is_absent():
    with pytest.raises(DeviceAbsent, match=r"hip: hipSetDevice\(1\): hipErrorInvalidDevice: invalid device ordinal"):
        open_device("hip:1")
