"""The main loops of a kernel, and the ways to them.

A main loop is an innermost loop that holds matrix instructions. Of its paths without inner loops, the one with the most
matrix instructions counts, of these the one with the most vector loads, then the most LDS bytes by vector accesses, and
of these the shortest. A branch that skips code because no lane is active counts as not taken. So the path is that of a
stage in the midst of a GEMM whose rows are aligned for vector loads.
"""

import re

from support.amd.disassembly import Instruction

MATRIX = re.compile(r"v_(?:mfma|wmma|swmmac)_\w*?(\d+x\d+x\d+)")
GLOBAL_LOAD = re.compile(r"(global|buffer|flat)_load_")
BYTES = {"b128": 16, "dwordx4": 16, "b96": 12, "dwordx3": 12, "b64": 8, "dwordx2": 8, "b16": 2, "u16": 2, "short": 2}


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
                loads + (what == "load" and is_wide(listed[i])),
                lds + bytes_of(listed[i]) * (what == "lds" and is_wide(listed[i])), every - 1, successor,
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


def is_wide(one: Instruction) -> bool:
    """Whether an access moves a vector, and not one number of each lane as an exchange between lanes does."""
    return bytes_of(one) >= 8


def bytes_of(one: Instruction) -> int:
    width = next((size for end, size in BYTES.items() if end in one.name), 4)
    return width * (2 if one.name.startswith(("ds_read2", "ds_write2", "ds_load_2", "ds_store_2")) else 1)
