"""What the main loops of GEMMs and attention consist of on AMD's chips, counted in the code objects, as bounds."""

import pytest
from support.amd import clang, count, disassembly
from support.amd.chips import CHIPS
from support.amd.main_loop import main_loops, measure

from hipgpt.compute.backends.gpu import compile_source
from hipgpt.compute.backends.variants import find_variant
from hipgpt.compute.catalogue import CATALOGUE
from hipgpt.compute.tensor import DType

needs_tools = pytest.mark.skipif(count.missing() is not None, reason=f"cannot count: {count.missing()}")
pytestmark = [pytest.mark.slow, needs_tools]
PROBE = """
typedef short Operand __attribute__((vector_size(8)));
typedef float Sum __attribute__((vector_size(16)));
extern "C" __global__ void __launch_bounds__(64) probe(Sum* c, const Operand* a, int n, int wide) {
    Sum sum = {};
    for (int i = 0; i < n; ++i) {
        const Operand loaded = a[i * 64 + threadIdx.x];
#pragma unroll
        for (int j = 0; j < 3; ++j) sum = __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(loaded, loaded, sum, 0, 0, 0);
        if (wide)
#pragma unroll 1
            for (int j = 0; j < i; ++j) c[j * 64] = sum;
    }
    c[threadIdx.x] = sum;
}
"""


@pytest.mark.parametrize("arch", CHIPS)
def test_matrix_cycles_agree_with_the_peak_of_the_data_sheet(arch):
    chip = CHIPS[arch]
    shape, cycles = max(chip.matrix.items())
    rows, columns, depth = map(int, shape.split("x"))
    peak = 2 * rows * columns * depth / cycles * chip.simds * chip.units * chip.gigahertz / 1000
    assert peak == pytest.approx(chip.peak_tflops, rel=0.03)


def test_a_loop_is_counted_as_its_source_says():
    driver = clang.OfflineDriver("gfx942")
    listed, needs = disassembly.of_image(driver.compile("k.hip", PROBE, {}, {"WAVE": 64}))["probe"]
    (path,) = main_loops(listed)
    loop = measure(path, CHIPS["gfx942"], needs)
    assert (loop.matrix, loop.loads, loop.lds, loop.serial_waits) == (3, 1, 0, 1)
    assert loop.bound == "one wave"
    assert loop.cycles > CHIPS["gfx942"].global_latency
    assert needs.spilled == 0


def test_a_wait_that_leaves_more_loads_than_are_outstanding_waits_for_none():
    def serial_waits(left: int) -> int:
        loads = [disassembly.Instruction("global_load_dwordx4", f"v[{i}:{i + 3}], v8, s[0:1]", 0, None) for i in (0, 4)]
        wait = disassembly.Instruction("s_waitcnt", f"vmcnt({left})", 0, None)
        mfma = disassembly.Instruction("v_mfma_f32_16x16x16_bf16", "a[0:3], v[8:9], v[8:9], a[0:3]", 0, None)
        all_arrived = disassembly.Instruction("s_waitcnt", "vmcnt(0)", 0, None)
        path = [*loads, wait, mfma, all_arrived]
        return measure(path, CHIPS["gfx942"], disassembly.Resources(8, 0, 0, 64)).serial_waits

    assert [serial_waits(left) for left in (0, 1, 2, 3, 5)] == [1, 1, 0, 0, 0]


# op, block tile: VALU for each matrix instruction, registers of a lane, at most. A GEMM waits for no load that was
# issued after the last matrix instruction before it.
MOST_ON_GFX942 = [
    ("matmul_forward", 256, 0.3, 256), ("matmul_backward_input", 256, 0.5, 256),
    ("matmul_backward_weight", 256, 0.6, 256), ("matmul_forward", 128, 0.6, 256),
    ("matmul_backward_input", 128, 1.0, 256), ("matmul_backward_weight", 128, 2.0, 256),
]  # fmt: skip


@pytest.mark.parametrize("name, side, valu_per_matrix, registers", MOST_ON_GFX942)
def test_main_loops_of_gemms_on_gfx942_stay_within_bounds(name, side, valu_per_matrix, registers):
    counted = count.loops(name, "gfx942", side)[0]
    assert counted.loop.valu_per_matrix <= valu_per_matrix
    assert counted.needs.registers <= registers
    assert (counted.loop.serial_waits, counted.needs.spilled) == (0, 0)
    assert counted.loop.lds_share <= 1
    assert counted.loop.bound == "matrix unit"


# op, channels: VALU for each matrix instruction, registers of a lane, at most. 256 registers leave room for two waves.
ATTENTION_ON_GFX942 = [
    ("attention_forward", 64, 3.0, 256), ("attention_forward", 128, 2.0, 256),
    ("attention_backward", 64, 2.0, 256), ("attention_backward", 128, 3.0, 400),
]  # fmt: skip


@pytest.mark.parametrize("name, channels, valu_per_matrix, registers", ATTENTION_ON_GFX942)
def test_main_loops_of_attention_on_gfx942_stay_within_bounds(name, channels, valu_per_matrix, registers):
    for counted in count.loops(name, "gfx942", channels):
        assert counted.loop.valu_per_matrix <= valu_per_matrix
        assert counted.needs.registers <= registers
        assert (counted.loop.serial_waits, counted.needs.spilled) == (0, 0)
        assert counted.loop.lds_share <= 0.8


# chip, channels: VALU for each matrix instruction of the forward and of the backward pass, at most
ATTENTION_ON_RDNA = [
    ("gfx1100", 64, 8.2, 8.5), ("gfx1100", 128, 5.2, 10.5), ("gfx1201", 64, 6.2, 5.8), ("gfx1201", 128, 4.2, 8.3),
]  # fmt: skip


@pytest.mark.parametrize("arch, channels, forward, backward", ATTENTION_ON_RDNA)
def test_main_loops_of_attention_on_rdna_stay_within_bounds(arch, channels, forward, backward):
    for name, valu_per_matrix in (("attention_forward", forward), ("attention_backward", backward)):
        for counted in count.loops(name, arch, channels):
            assert counted.loop.valu_per_matrix <= valu_per_matrix
            assert (counted.loop.serial_waits, counted.needs.spilled) == (0, 0)
            # its waves do not wait for each operand's load from LDS
            assert name == "attention_backward" or counted.loop.bound == "matrix unit"


def test_attention_is_counted_for_the_heads_that_it_is_asked_for():
    assert {count.loops("attention_forward", "gfx942", channels)[0].size for channels in (64, 128)} == {64, 128}
    few, many = (count.loops("attention_forward", "gfx942", channels)[0] for channels in (32, 128))
    assert few.needs.registers < many.needs.registers


def test_a_decoded_token_has_the_loads_of_four_keys_and_values_under_way_at_once():
    op = CATALOGUE["attention_decode"]
    variant = find_variant(op, "gfx942", DType.BF16, {"B": 1, "H": 1, "D": 64, "T": 64})
    image = compile_source(clang.OfflineDriver("gfx942"), variant, op, DType.BF16)
    listed, _ = disassembly.of_image(image)[op.name]
    under_way = most = 0
    for one in listed:
        under_way = 0 if "vmcnt" in one.operands else under_way + (one.name == "global_load_dwordx4")
        most = max(most, under_way)
    assert most == 8
