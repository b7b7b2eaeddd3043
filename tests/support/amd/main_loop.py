"""What an iteration of a main loop consists of, and how long a model says that it takes. paths.py finds the loops.

The model takes an iteration to last as long as the busiest of these needs, on a compute unit that holds as many waves
as registers and LDS allow:

    the matrix unit of a SIMD; its issue of all other vector instructions; the LDS; the path from L2;
    one wave alone, in program order: a wait lasts until what it waits for has arrived, a vector instruction waits for
    the matrix instruction whose result it reads.

It knows no misses of L2, no start and end of a kernel, and lets waves overlap ideally, so a chip is
slower. No chip has confirmed it. The best library reaches 785 of an MI300X's 1,307 TFLOP/s (hipBLASLt, 8192^3; 60 %),
although such a loop could keep the matrix unit busy all the time: read an estimate as what the instructions allow, and
take 40 % off for a forecast.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from support.amd import lds
from support.amd.chips import Chip, waves_of_a_simd
from support.amd.disassembly import Instruction, Resources
from support.amd.paths import MATRIX, bytes_of, kind

TRANSCENDENTAL = re.compile(r"v_(exp|log|rcp|rsq|sqrt|sin|cos)_")
COUNTERS = {"vmcnt": "global", "loadcnt": "global", "lgkmcnt": "lds", "dscnt": "lds"}


class Loop(NamedTuple):
    """An iteration's instructions by kind, and the estimate.

    serial_waits: waits for a global load that was issued with no matrix instruction since. bound: what the estimate
    says is busiest. banks: the cycles that the LDS needs for a wave, with bank conflicts.
    """

    matrix: int
    valu: int
    exponentials: int  # of the VALU instructions
    lds: int
    loads: int
    waits: dict[str, int]
    serial_waits: int
    cycles: float
    banks: lds.Cycles
    lds_share: float  # LDS cycles per matrix cycle
    bound: str
    tflops: float

    @property
    def valu_per_matrix(self) -> float:
        return self.valu / self.matrix


def measure(path: list[Instruction], chip: Chip, needs: Resources, before: Sequence[Instruction] = ()) -> Loop:
    """Count an iteration and estimate its time. before: what leads to the loop, without which addresses are unknown."""
    kinds = Counter(map(kind, path))
    shape = next(MATRIX.match(one.name)[1] for one in path if kind(one) == "matrix")  # type: ignore[index]
    rows, columns, depth = map(int, shape.split("x"))
    waits = Counter(COUNTERS[name] for one in path for name in _waited(one))
    waves = waves_of_a_simd(chip, needs.registers, needs.lds_bytes, needs.threads)
    matrix_cycles = kinds["matrix"] * chip.matrix[shape]
    banks = lds.cycles(before, path, chip, needs.threads)
    alone, serial = _alone(path, chip, chip.matrix[shape])
    needed = {
        "matrix unit": waves * matrix_cycles,
        "issue": waves * sum(_issue_cycles(one, chip) for one in path if kind(one) != "matrix"),
        "LDS": waves * chip.simds * banks.counted,
        "L2": waves * chip.simds * chip.lanes * sum(map(bytes_of, filter(_loads, path))) / chip.global_bytes,
        "one wave": alone,
    }
    bound = max(needed, key=needed.__getitem__)
    operations = 2 * rows * columns * depth * kinds["matrix"] * waves * chip.simds * chip.units
    tflops = operations / needed[bound] * chip.gigahertz / 1000
    return Loop(
        kinds["matrix"], kinds["valu"], sum(one.name.startswith("v_exp_") for one in path), kinds["lds"],
        kinds["load"], dict(waits), serial, needed[bound], banks, chip.simds * banks.counted / matrix_cycles, bound,
        tflops,
    )  # fmt: skip


def _loads(one: Instruction) -> bool:
    return kind(one) == "load"


def _issue_cycles(one: Instruction, chip: Chip) -> int:
    if TRANSCENDENTAL.match(one.name):
        return chip.transcendental_cycles
    return chip.valu_cycles if kind(one) in ("valu", "matrix") else 0


def _waited(one: Instruction) -> dict[str, int]:
    """Return by counter how many accesses a wait leaves outstanding."""
    if kind(one) != "wait" or "storecnt" in one.name or "vscnt" in one.name:
        return {}
    found = {name: int(count) for name, count in re.findall(r"(vmcnt|lgkmcnt)\((\d+)\)", one.operands)}
    for name in re.findall(r"loadcnt|dscnt", one.name):
        bits = int(one.operands.split(",")[0], 0)
        found[name] = bits if one.name in ("s_wait_loadcnt", "s_wait_dscnt") else bits >> 8 * (name == "loadcnt") & 63
    return found


def _alone(path: list[Instruction], chip: Chip, matrix_cycles: int) -> tuple[float, int]:
    """Return the cycles of an iteration of one wave in a steady state, and its serial waits."""
    now, unit_free, ended = 0.0, 0.0, [0.0, 0.0, 0.0]
    pending: dict[str, list[tuple[float, int]]] = {"global": [], "lds": []}  # when they arrive, matrix count at issue
    ready: dict[str, float] = {}
    multiplied = serial = 0
    for turn in range(3):
        serial = 0
        for one in path:
            what = kind(one)
            named = one.registers()
            if what == "matrix":
                now = max([now, unit_free, *(ready.get(r, 0.0) for group in named[1:3] for r in group)])
                unit_free = now + matrix_cycles
                multiplied += 1
                ready |= dict.fromkeys(named[0], unit_free)
            elif what in ("valu", "lds", "store"):
                now = max([now, *(ready.pop(r, 0.0) for group in named for r in group)])
            if what == "load":
                pending["global"].append((now + chip.global_latency, multiplied))
            elif what == "lds":
                pending["lds"].append((now + chip.lds_latency, multiplied))
            for name, left in _waited(one).items():
                queue = pending[COUNTERS[name]]
                done = max(0, len(queue) - left)
                arrived, pending[COUNTERS[name]] = queue[:done], queue[done:]
                if arrived:
                    now = max(now, arrived[-1][0])
                    serial += COUNTERS[name] == "global" and arrived[-1][1] == multiplied
            now += max(_issue_cycles(one, chip), 1)
        ended[turn] = now
    return ended[2] - ended[1], serial
