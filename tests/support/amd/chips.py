"""The facts about AMD's chips that the estimate of main_loop.py needs, with their sources.

Compute units, clocks and peaks: AMD's data sheets of the products. Issue and matrix cycles: "AMD Instinct MI300
Instruction Set Architecture" and "AMD Instinct MI200 Instruction Set Architecture" (passes of an MFMA), "RDNA3" and
"RDNA4 Instruction Set Architecture". The cycles of a matrix instruction agree with the data sheet's peak, which
tests/compute/test_amd_counts.py checks. LDS: 32 banks of 4 bytes for each compute unit ("CDNA 3 White Paper", "RDNA3
ISA" 2.2), and on CDNA 4, 64 for loads (HipKittens' measurements, arXiv:2511.08083). The latencies are assumptions, for
hits in L2; HBM takes about twice as long.
"""

from typing import NamedTuple


class Chip(NamedTuple):
    """units: compute units; simds: of a unit; registers: of a SIMD, per lane; granule: in which they are allocated.

    lds_bytes: of a compute unit; valu_cycles: that a vector instruction occupies its SIMD; matrix: cycles of a matrix
    instruction by a part of its name; global_bytes: that L2 delivers to a compute unit in a cycle; read_banks,
    write_banks: of the LDS, for loads and for stores.
    """

    product: str
    peak_tflops: float
    units: int
    gigahertz: float
    simds: int
    lanes: int
    registers: int
    granule: int
    most_waves: int  # of a SIMD
    lds_bytes: int
    valu_cycles: int
    transcendental_cycles: int
    matrix: dict[str, int]
    global_bytes: int = 64
    read_banks: int = 32
    write_banks: int = 32
    global_latency: int = 700
    lds_latency: int = 64


KIB = 1 << 10
CHIPS = {
    "gfx90a": Chip("MI250X, one die", 191.5, 110, 1.7, 4, 64, 512, 8, 8, 64 * KIB, 4, 16, {"16x16x16": 32}),
    "gfx942": Chip("MI300X", 1307.4, 304, 2.1, 4, 64, 512, 8, 8, 64 * KIB, 4, 16, {"16x16x16": 16}),
    "gfx950": Chip(
        "MI355X", 2516.6, 256, 2.4, 4, 64, 512, 8, 8, 160 * KIB, 4, 16, {"16x16x16": 16, "16x16x32": 16},
        read_banks=64,
    ),
    "gfx1100": Chip("RX 7900 XTX", 122.8, 96, 2.5, 2, 32, 1536, 24, 16, 64 * KIB, 1, 4, {"16x16x16": 32}),
    "gfx1151": Chip("Radeon 8060S", 59.4, 40, 2.9, 2, 32, 1536, 24, 16, 64 * KIB, 1, 4, {"16x16x16": 32}),
    "gfx1200": Chip("RX 9060 XT", 102.6, 32, 3.13, 2, 32, 1536, 24, 16, 64 * KIB, 1, 4, {"16x16x16": 16}),
    "gfx1201": Chip("RX 9070 XT", 194.6, 64, 2.97, 2, 32, 1536, 24, 16, 64 * KIB, 1, 4, {"16x16x16": 16}),
}  # fmt: skip


def waves_of_a_simd(chip: Chip, registers: int, lds_bytes: int, threads: int) -> float:
    """Return how many waves of a kernel a SIMD holds at once, as its registers and the unit's LDS allow."""
    waves = threads // chip.lanes  # of a block
    by_registers = chip.registers // (-(-registers // chip.granule) * chip.granule)
    blocks = min(min(by_registers, chip.most_waves) * chip.simds // waves, chip.lds_bytes // max(lds_bytes, 1))
    return blocks * waves / chip.simds
