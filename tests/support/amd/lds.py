"""How many cycles the LDS needs for an instruction: the lanes' addresses, and the banks that these fall into.

The addresses are computed from the code object: all threads of a block execute the integer instructions from the
kernel's start to the main loop, on the shortest path, and through one iteration (integers.py).

An access is made in phases, in which the LDS serves a part of the lanes. A phase takes as many cycles as the bank with
the most different words of 4 bytes in it. Which lanes share a phase:

    CDNA 2 and 3, by 16 bytes: "Understanding AMD GPU LDS and Bank Conflicts" in the documentation of Composable Kernel
    CDNA 4: HipKittens' measurements, arXiv:2511.08083, except stores of 16 bytes, for which CDNA 3's are assumed
    all others: an assumption, as many neighbouring lanes as fill the banks
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from support.amd.chips import Chip
from support.amd.disassembly import Instruction
from support.amd.integers import Threads, Values

ACCESS = re.compile(r"ds_(?P<way>read|write|load|store)(?P<two>2|_2addr)?(?P<far>st64|_stride64)?_b(?P<bits>32|64|128)")
OFFSET = re.compile(r"\boffset([01]?):(\d+)")
WORD_BYTES = 4


class Cycles(NamedTuple):
    """LDS cycles of a wave in an iteration: without conflicts, and with those that the known addresses show."""

    least: float
    counted: float
    unknown: int  # accesses whose addresses are not known

    @property
    def conflicts(self) -> float:
        return self.counted - self.least


def phases(chip: Chip, stores: bool, size: int) -> list[list[int]]:
    """Return the lanes of each phase of an access by so many bytes."""
    fours = [list(range(first, first + 4)) for first in range(0, chip.lanes, 4)]
    if size == 16 and chip.lanes == 64 and not stores:
        pairs = [fours[first] + fours[first ^ 5] for first in (0, 1, 2, 3, 8, 9, 10, 11)]
        if chip.read_banks == 32:
            return pairs
        return [pairs[first] + pairs[3 - first % 4 + first // 4 * 4] for first in (0, 1, 4, 5)]
    count = (chip.write_banks if stores else chip.read_banks) * WORD_BYTES // size
    return [list(range(first, first + count)) for first in range(0, chip.lanes, count)]


def cycles_of(address: Values | None, chip: Chip, stores: bool, size: int) -> tuple[float, float]:
    """Return an access's cycles for a wave without conflicts, and as counted: the mean over a block's waves."""
    shared, banks = phases(chip, stores, size), chip.write_banks if stores else chip.read_banks
    if address is None:
        return len(shared), len(shared)
    words = address[:, None] // WORD_BYTES + np.arange(size // WORD_BYTES)
    waves = words.reshape(-1, chip.lanes, words.shape[1])
    counted = [np.bincount(np.unique(wave[lanes]) % banks).max() for wave in waves for lanes in shared]
    return len(shared), float(sum(counted)) / len(waves)


def cycles(before: Sequence[Instruction], path: Sequence[Instruction], chip: Chip, threads: int) -> Cycles:
    """Return the LDS cycles of an iteration. before: the instructions that lead to the loop."""
    block = Threads(threads, chip.lanes)
    for one in before:
        block.run(one)
    least = counted = 0.0
    unknown = 0
    for one in path:
        if one.name.startswith("ds_"):
            for address, stores, size in accesses(one, block):
                ideal, real = cycles_of(address, chip, stores, size)
                least, counted, unknown = least + ideal, counted + real, unknown + (address is None)
        block.run(one)
    return Cycles(least, counted, unknown)


def accesses(one: Instruction, block: Threads) -> list[tuple[Values | None, bool, int]]:
    """Return address, whether it stores, and bytes of each access that an LDS instruction makes, one or two."""
    if one.name.startswith(("ds_bpermute", "ds_swizzle")):  # moves 4 bytes of each lane, and reads no bank
        return [(np.arange(block.threads) * WORD_BYTES, False, WORD_BYTES)]
    found = ACCESS.match(one.name)
    if not found:
        raise ValueError(f"{one.name}: the banks of this LDS instruction are not known; add it to {__name__}")
    stores, size = found["way"] in ("write", "store"), int(found["bits"]) // 8
    operands = [operand.split()[0] for operand in one.operands.split(",")]
    base = block.read(operands[0 if stores else 1])
    offsets = {which: int(value) for which, value in OFFSET.findall(one.operands)}
    unit = size * (64 if found["far"] else 1)
    starts = [offsets.get(i, 0) * unit for i in "01"] if found["two"] else [offsets.get("", 0)]
    return [(None if base is None else base + start, stores, size) for start in starts]
