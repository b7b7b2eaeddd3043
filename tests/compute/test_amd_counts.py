"""What the main loops of GEMMs and attention consist of on AMD's chips, counted in the code objects, as bounds."""

from typing import NamedTuple

import pytest
from support.amd import clang, count, disassembly
from support.amd.chips import CHIPS
from support.amd.main_loop import measure
from support.amd.paths import main_loops

from hipgpt.compute.backends.code_objects import compile_source
from hipgpt.compute.backends.variants import find_variant
from hipgpt.compute.catalogue import CATALOGUE
from hipgpt.compute.tensor import DType

needs_tools = pytest.mark.skipif(count.missing() is not None, reason=f"cannot count: {count.missing()}")
pytestmark = [pytest.mark.slow, needs_tools]
ARCHS = ("gfx942", "gfx950", "gfx1100", "gfx1201")
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


class Most(NamedTuple):
    """Upper bounds of a main loop. size: block tile or channels. lds_share: LDS cycles for each matrix cycle."""

    arch: str
    name: str
    size: int
    valu_per_matrix: float
    registers: int  # 256 leave room for two waves of a SIMD on CDNA
    lds_share: float

    def __str__(self) -> str:
        return f"{self.arch}-{self.name}-{self.size}"


MOST = [Most(*row) for row in [
    ("gfx942", "matmul_forward", 256, 0.2, 256, 0.5), ("gfx942", "matmul_backward_input", 256, 0.3, 256, 0.5),
    ("gfx942", "matmul_backward_weight", 256, 0.4, 256, 0.55), ("gfx942", "matmul_forward", 128, 0.2, 170, 0.8),
    ("gfx942", "matmul_backward_input", 128, 0.4, 170, 0.8), ("gfx942", "matmul_backward_weight", 128, 0.6, 170, 0.8),
    ("gfx942", "attention_forward", 64, 2.1, 256, 0.65), ("gfx942", "attention_forward", 128, 1.2, 256, 0.65),
    ("gfx942", "attention_backward", 64, 1.6, 256, 0.7), ("gfx942", "attention_backward", 128, 2.8, 400, 0.7),
    ("gfx950", "matmul_forward", 256, 0.2, 256, 0.65), ("gfx950", "matmul_backward_input", 256, 0.6, 256, 0.65),
    ("gfx950", "matmul_backward_weight", 256, 0.9, 256, 0.65), ("gfx950", "matmul_forward", 128, 0.3, 170, 1.0),
    ("gfx950", "matmul_backward_input", 128, 1.0, 170, 1.0), ("gfx950", "matmul_backward_weight", 128, 1.7, 170, 1.0),
    ("gfx950", "attention_forward", 64, 3.3, 170, 0.75), ("gfx950", "attention_forward", 128, 2.0, 256, 0.75),
    ("gfx950", "attention_backward", 64, 2.5, 256, 0.85), ("gfx950", "attention_backward", 128, 2.5, 400, 0.85),
    ("gfx1100", "matmul_forward", 128, 0.3, 192, 0.5), ("gfx1100", "matmul_backward_input", 128, 0.8, 192, 0.5),
    ("gfx1100", "matmul_backward_weight", 128, 1.8, 192, 0.5),
    ("gfx1100", "attention_forward", 64, 4.3, 256, 0.65), ("gfx1100", "attention_forward", 128, 2.6, 256, 0.65),
    ("gfx1100", "attention_backward", 64, 3.6, 256, 0.65), ("gfx1100", "attention_backward", 128, 3.4, 256, 0.95),
    ("gfx1201", "matmul_forward", 128, 0.3, 192, 0.5), ("gfx1201", "matmul_backward_input", 128, 0.8, 192, 0.5),
    ("gfx1201", "matmul_backward_weight", 128, 1.3, 192, 0.5),
    ("gfx1201", "attention_forward", 64, 4.6, 192, 0.65), ("gfx1201", "attention_forward", 128, 2.7, 256, 0.65),
    ("gfx1201", "attention_backward", 64, 3.6, 192, 0.7), ("gfx1201", "attention_backward", 128, 3.2, 256, 1.0),
]]  # fmt: skip


def counts_on(arch: str):
    return pytest.mark.skipif(count.missing(arch) is not None, reason=f"cannot count: {count.missing(arch)}")


@pytest.mark.parametrize("most", [pytest.param(most, marks=counts_on(most.arch), id=str(most)) for most in MOST])
def test_main_loops_stay_within_bounds(most):
    for counted in count.loops(most.name, most.arch, most.size):
        assert counted.loop.valu_per_matrix <= most.valu_per_matrix
        assert counted.needs.registers <= most.registers
        assert counted.loop.lds_share <= most.lds_share
        assert (counted.loop.serial_waits, counted.needs.spilled) == (0, 0)


@pytest.mark.parametrize("arch", [pytest.param(arch, marks=counts_on(arch)) for arch in ARCHS])
def test_no_access_of_a_main_loop_has_bank_conflicts(arch):
    """Every address is computed from the code object: none is unknown, so none is left out."""
    banks = {f"{one.kernel} {one.size}": one.loop.banks for name in count.KERNELS for one in count.counted(name, arch)}
    assert {name: (found.conflicts, found.unknown) for name, found in banks.items()} == dict.fromkeys(banks, (0, 0))


@pytest.mark.parametrize(
    "arch, names, sizes",
    [("gfx942", "matmul", (128, 256)), ("gfx1100", "matmul", (128,)), ("gfx1100", "attention_forward", (64, 128)),
     ("gfx1201", "matmul", (128,)), ("gfx1201", "attention_forward", (64, 128))],
)  # fmt: skip
def test_the_matrix_unit_sets_the_pace(arch, names, sizes):
    found = [one for name in count.KERNELS if names in name for size in sizes for one in count.loops(name, arch, size)]
    assert {one.loop.bound for one in found} == {"matrix unit"}


@pytest.mark.parametrize("name", ["attention_forward", "attention_backward"])
@pytest.mark.parametrize("arch", [pytest.param(arch, marks=counts_on(arch)) for arch in ARCHS])
def test_attention_takes_one_exponential_for_each_score_of_a_lane(arch, name):
    """So the usual tile does not scale earlier sums. docs/amd.md derives from this how few VALU there can be.

    paths.py counts the shortest path. So neither the first tile, which compares its scores too, is counted, nor a rare
    one that raises the reference and computes its exponentials twice.
    """
    rows, columns, depth = max(tuple(map(int, shape.split("x"))) for shape in CHIPS[arch].matrix)
    scores = rows * columns / CHIPS[arch].lanes  # of a lane in a product's tile
    for channels in (64, 128):
        loops = count.loops(name, arch, channels)
        products = (2,) if len(loops) == 1 else (4, 3)  # of a pair of tiles
        for one, made in zip(loops, products, strict=True):
            tiles = one.loop.matrix / (made * channels / depth)
            assert one.loop.exponentials == tiles * scores


def test_attention_is_counted_for_the_heads_that_it_is_asked_for():
    assert {count.loops("attention_forward", "gfx942", channels)[0].size for channels in (64, 128)} == {64, 128}
    few, many = (count.loops("attention_forward", "gfx942", channels)[0] for channels in (32, 128))
    assert few.loop.exponentials / few.loop.matrix == 4 * many.loop.exponentials / many.loop.matrix


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
