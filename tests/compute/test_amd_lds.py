"""The count of LDS bank conflicts: phases, banks, and addresses as the instructions of a code object compute them."""

import itertools

import numpy as np
import pytest
from support.amd import clang, count, lds
from support.amd.chips import CHIPS
from support.amd.disassembly import Instruction, of_image
from support.amd.integers import Threads

BY_WIDTH = list(itertools.product(CHIPS, (True, False), (4, 8, 16)))
PROBE = """
typedef unsigned Vector __attribute__((vector_size(16)));
extern "C" __global__ void __launch_bounds__(256) probe(Vector* out, int n) {
    __shared__ Vector tile[256 * 8];
    const unsigned t = threadIdx.x;
    tile[t * 8] = out[t];
    __syncthreads();
    out[t] = tile[(t ^ 1) * 8 %s];
}
"""


def cycles(chip: str, address: np.ndarray, size: int = 16, stores: bool = False) -> tuple[float, float]:
    return lds.cycles_of(address, CHIPS[chip], stores, size)


@pytest.mark.parametrize("name, stores, size", BY_WIDTH)
def test_each_lane_is_in_one_phase_that_fills_the_banks(name, stores, size):
    chip = CHIPS[name]
    phases = lds.phases(chip, stores, size)
    assert sorted(itertools.chain(*phases)) == list(range(chip.lanes))
    banks = chip.write_banks if stores else chip.read_banks
    assert {len(lanes) * size // 4 for lanes in phases} <= {banks, chip.lanes * size // 4}


@pytest.mark.parametrize("name, stores, size", BY_WIDTH)
def test_neighbouring_words_and_one_word_for_all_lanes_have_no_conflicts(name, stores, size):
    lanes = np.arange(CHIPS[name].lanes)
    for address in (lanes * size, lanes * 0):
        least, counted = cycles(name, address, size, stores)
        assert counted == least


@pytest.mark.parametrize("name", CHIPS)
def test_lanes_in_one_bank_take_a_cycle_each(name):
    chip = CHIPS[name]
    assert cycles(name, np.arange(chip.lanes) * chip.read_banks * 4)[1] == chip.lanes


@pytest.mark.parametrize(
    "chip, stores, together",
    [("gfx942", False, {1, 2, 3, 20, 21, 22, 23}), ("gfx950", False, {1, 2, 3, *range(12, 16), *range(20, 28)}),
     ("gfx942", True, {*range(1, 8)}), ("gfx950", True, {*range(1, 8)}), ("gfx1100", False, {*range(1, 8)})],
)  # fmt: skip
def test_lane_0_conflicts_with_the_lanes_of_its_phase_alone(chip, stores, together):
    def conflicts_with(lane: int) -> bool:
        address = np.zeros(CHIPS[chip].lanes, int)
        address[[0, lane]] = 16, 4096 + 16  # one bank; all other lanes load or store one word of another
        least, counted = cycles(chip, address, stores=stores)
        return counted > least

    assert {lane for lane in range(1, CHIPS[chip].lanes) if conflicts_with(lane)} == together


def test_an_instruction_that_is_not_known_makes_its_result_unknown():
    block = Threads(64, 64)
    block.run(Instruction("v_lshlrev_b32_e32", "v1, 4, v0", 0, None))
    assert list(block.read("v1")[:3]) == [0, 16, 32]
    block.run(Instruction("v_unknown_b32", "v1, v0", 0, None))
    assert block.read("v1") is None


@pytest.mark.slow
@pytest.mark.skipif(count.missing() is not None, reason=f"cannot count: {count.missing()}")
@pytest.mark.parametrize("arch", ["gfx942", "gfx1100"])
@pytest.mark.parametrize("permuted, conflicts", [("", 7), ("+ (t ^ 1) % 8", 0)])
def test_conflicts_of_a_kernel_are_those_of_its_source(arch, permuted, conflicts):
    """Rows of 128 bytes: eight lanes of a phase load the same chunk, or eight different ones."""
    chip = CHIPS[arch]
    image = clang.OfflineDriver(arch).compile("k.hip", PROBE % permuted, {}, {"WAVE": chip.lanes})
    listed, needs = of_image(image)["probe"]
    (load,) = [i for i, one in enumerate(listed) if one.name in ("ds_read_b128", "ds_load_b128")]
    found = lds.cycles(listed[:load], [listed[load]], chip, needs.threads)
    phases = chip.lanes / 8
    assert found == lds.Cycles(phases, phases * (1 + conflicts), 0)
