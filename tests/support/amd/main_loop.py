"""The main loops of a kernel: what an iteration consists of, and how long a model says that it takes.

A main loop is an innermost loop that holds matrix instructions. Of its paths without inner loops, the one with the most
matrix instructions counts, of these the one with the most vector loads, then the most LDS bytes, and of these the
shortest. A branch that skips code because no lane is active counts as not taken. So the path is that of a stage in the
midst of a GEMM whose rows are aligned for vector loads.

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

MATRIX = re.compile(r"v_(?:mfma|wmma|swmmac)_\w*?(\d+x\d+x\d+)")
TRANSCENDENTAL = re.compile(r"v_(exp|log|rcp|rsq|sqrt|sin|cos)_")
GLOBAL_LOAD = re.compile(r"(global|buffer|flat)_load_")
BYTES = {"b128": 16, "dwordx4": 16, "b96": 12, "dwordx3": 12, "b64": 8, "dwordx2": 8, "b16": 2, "u16": 2, "short": 2}
COUNTERS = {"vmcnt": "global", "loadcnt": "global", "lgkmcnt": "lds", "dscnt": "lds"}
LATER = 10**9


class Loop(NamedTuple):
    """An iteration's instructions by kind, and the estimate.

    serial_waits: waits for a global load that was issued with no matrix instruction since. bound: what the estimate
    says is busiest. banks: the cycles that the LDS needs for a wave, with bank conflicts.
    """

    matrix: int
    valu: int
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


def kind(instruction: Instruction) -> str:
    """Return matrix, valu, lds, load, store, wait or scalar."""
    name = instruction.name
    if MATRIX.match(name):
        return "matrix"
    if name.startswith(("v_accvgpr", "v_")):
        return "valu"
    if name.startswith("ds_"):
        return "lds"
    if GLOBAL_LOAD.match(name):
        return "load"
    if name.startswith(("global_", "buffer_", "flat_")):
        return "store"
    return "wait" if name.startswith("s_wait") else "scalar"


def main_loops(listed: list[Instruction]) -> list[list[Instruction]]:
    """Return the chosen path through each innermost loop that holds matrix instructions."""
    at = {one.address: i for i, one in enumerate(listed)}
    after = {i: set(_followers(one, i, at)) for i, one in enumerate(listed)}
    loops: dict[int, set[int]] = {}
    for i, one in enumerate(listed):
        if kind(one) == "matrix" and not any(i in body for body in loops.values()):
            header, body = _innermost_loop(i, after)
            if body:
                loops[header] = body
    return [_path(listed, at, header, body) for header, body in loops.items()]


def way_to(listed: list[Instruction], path: list[Instruction]) -> list[Instruction]:
    """Return the shortest path from a kernel's start to a loop, without the loop's first instruction."""
    at = {one.address: i for i, one in enumerate(listed)}
    header = at[path[0].address]
    came_from = {0: 0}
    ahead = [0]
    for i in ahead:
        for following in _followers(listed[i], i, at):
            if following not in came_from:
                came_from[following] = i
                ahead.append(following)
    way, i = [], header
    while i:
        i = came_from[i]
        way.append(listed[i])
    return way[::-1]


def _followers(one: Instruction, i: int, at: dict[int, int]) -> list[int]:
    """Return what may run after an instruction."""
    if one.name == "s_endpgm":
        return []
    if one.target is None:
        return [i + 1]
    return [at[one.target]] if one.name == "s_branch" else [i + 1, at[one.target]]


def _innermost_loop(i: int, after: dict[int, set[int]]) -> tuple[int, set[int]]:
    """Return the header and all instructions of the innermost loop around an instruction; none if it is in no loop.

    A loop is what an instruction reaches and is reached from. Without its jumps to the header, it falls apart into the
    loops inside.
    """
    header, body = -1, set(after)
    while True:
        inside = {one: (after[one] & body) - {header} for one in body}
        inner = _reached(i, inside) & _reached(i, _turned(inside))
        if not inner:
            return header, set() if header < 0 else body
        entries = [one for before in body - inner for one in inside[before] & inner]
        header, body = min(entries, default=i), inner


def _reached(i: int, after: dict[int, set[int]]) -> set[int]:
    found: set[int] = set()
    ahead = set(after[i])
    while ahead:
        found |= ahead
        ahead = set().union(*(after[one] for one in ahead)) - found
    return found


def _turned(after: dict[int, set[int]]) -> dict[int, set[int]]:
    before: dict[int, set[int]] = {one: set() for one in after}
    for one, ways in after.items():
        for way in ways:
            before[way].add(one)
    return before


def _path(listed: list[Instruction], at: dict[int, int], header: int, body: set[int]) -> list[Instruction]:
    order, inner_headers = _backwards(listed, at, header, body)
    best: dict[
        int, tuple[int, ...]
    ] = {}  # from here to the end: -inner loops, matrix, loads, LDS bytes, -all; what follows
    for i in order:
        what, after = kind(listed[i]), _taken(listed[i], i, at)
        ways = [(*best[one][:-1], one) for one in after if one in best and one != header]
        ways += [(0, 0, 0, 0, 0, header)] if header in after else []
        if ways:
            inner, matrix, loads, lds, every, successor = max(ways)
            best[i] = (
                inner - (i in inner_headers), matrix + (what == "matrix"),
                loads + (what == "load" and _bytes(listed[i]) >= 8), lds + (what == "lds") * _bytes(listed[i]),
                every - 1, successor,
            )  # fmt: skip
    path, i = [listed[header]], best[header][-1]
    while i != header:
        path.append(listed[i])
        i = best[i][-1]
    return path


def _backwards(
    listed: list[Instruction], at: dict[int, int], header: int, body: set[int]
) -> tuple[list[int], set[int]]:
    """Return a loop's instructions, each after all that follow it in an iteration, and the headers of loops inside.

    That is the postorder of a depth-first search; a jump to what the search is in the midst of closes a loop.
    """
    order, seen, open_ones, inner_headers = [], {header}, {header}, set()
    stack = [(header, iter(_taken(listed[header], header, at)))]
    while stack:
        i, ways = stack[-1]
        following = next(ways, None)
        if following is None:
            order.append(i)
            open_ones.remove(i)
            stack.pop()
        elif following in open_ones - {header}:
            inner_headers.add(following)
        elif following in body and following not in seen:
            seen.add(following)
            open_ones.add(following)
            stack.append((following, iter(_taken(listed[following], following, at))))
    return order, inner_headers


def _taken(one: Instruction, i: int, at: dict[int, int]) -> list[int]:
    """Return what may run after an instruction of which some lane is active."""
    ways = _followers(one, i, at)
    if one.name.endswith("execz"):
        return ways[:1]
    return ways[1:] if one.name.endswith("execnz") and ways[1] > i else ways


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
        "L2": waves * chip.simds * chip.lanes * sum(map(_bytes, filter(_loads, path))) / chip.global_bytes,
        "one wave": alone,
    }
    bound = max(needed, key=needed.__getitem__)
    operations = 2 * rows * columns * depth * kinds["matrix"] * waves * chip.simds * chip.units
    tflops = operations / needed[bound] * chip.gigahertz / 1000
    return Loop(
        kinds["matrix"], kinds["valu"], kinds["lds"], kinds["load"], dict(waits), serial, needed[bound],
        banks, chip.simds * banks.counted / matrix_cycles, bound, tflops,
    )  # fmt: skip


def _loads(one: Instruction) -> bool:
    return kind(one) == "load"


def _bytes(one: Instruction) -> int:
    width = next((size for end, size in BYTES.items() if end in one.name), 4)
    return width * (2 if one.name.startswith(("ds_read2", "ds_write2", "ds_load_2", "ds_store_2")) else 1)


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
