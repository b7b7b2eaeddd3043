"""The integer registers of a block's threads, as the instructions of a code object set them: for addresses.

A scalar that is not known is the same for all lanes of a wave and counts as 0, because it moves their addresses alike.
A vector register that is not known, for example because it was loaded, makes what is computed from it unknown.
All lanes are taken to be active.
"""

import re
from collections.abc import Callable, Iterator

import numpy as np
from support.amd.disassembly import Instruction

WORD = 1 << 32
NUMBER = re.compile(r"-?\d+|0x[0-9a-f]+")
RANGE = re.compile(r"([vas])\[(\d+):(\d+)\]")
NO_RESULT = re.compile(r"s_(cmp|bitcmp|c?branch|wait|barrier|nop|setprio|delay|end)|(ds|global|buffer)_(write|store)")
BITOP = re.compile(r"(\S+) bitop3:(\w+)")
ENCODING = re.compile(r"_e(32|64)$")
Values = np.ndarray  # int64, of each thread, from 0 to WORD - 1
Op = Callable[..., Values]

OPS: dict[str, Op] = {
    "mov_b32": lambda a: a,
    "movk_i32": lambda a: a,
    "accvgpr_mov_b32": lambda a: a,
    "accvgpr_read_b32": lambda a: a,
    "accvgpr_write_b32": lambda a: a,
    "and_b32": lambda a, b: a & b,
    "or_b32": lambda a, b: a | b,
    "xor_b32": lambda a, b: a ^ b,
    "xor3_b32": lambda a, b, c: a ^ b ^ c,
    "or3_b32": lambda a, b, c: a | b | c,
    "and_or_b32": lambda a, b, c: a & b | c,
    "lshl_b32": lambda a, b: a << (b & 31),
    "lshr_b32": lambda a, b: a >> (b & 31),
    "lshlrev_b32": lambda a, b: b << (a & 31),
    "lshrrev_b32": lambda a, b: b >> (a & 31),
    "add_u32": lambda a, b: a + b,
    "sub_u32": lambda a, b: a - b,
    "subrev_u32": lambda a, b: b - a,
    "mul_u32_u24": lambda a, b: (a & 0xFFFFFF) * (b & 0xFFFFFF),
    "mul_lo_u32": lambda a, b: a * b,
    "mad_u32_u24": lambda a, b, c: (a & 0xFFFFFF) * (b & 0xFFFFFF) + c,
    "add3_u32": lambda a, b, c: a + b + c,
    "lshl_add_u32": lambda a, b, c: (a << (b & 31)) + c,
    "add_lshl_u32": lambda a, b, c: a + b << (c & 31),
    "lshl_or_b32": lambda a, b, c: a << (b & 31) | c,
    "xad_u32": lambda a, b, c: (a ^ b) + c,
    "bfe_u32": lambda a, b, c: a >> (b & 31) & (1 << (c & 31)) - 1,
    "bfe_i32": lambda a, b, c: a << (64 - (b & 31) - (c & 31)) >> (64 - (c & 31)),  # of 64 bits, so the sign spreads
    "ashrrev_i32": lambda a, b: _signed(b) >> (a & 31),
    "ashr_i32": lambda a, b: _signed(a) >> (b & 31),
    "not_b32": lambda a: ~a,
    "bfrev_b32": lambda a: sum((a >> bit & 1) << (31 - bit) for bit in range(32)),
    "and_not1_b32": lambda a, b: a & ~b,
    "andn2_b32": lambda a, b: a & ~b,
    "bfi_b32": lambda a, b, c: a & b | ~a & c,
}
RENAMED = {"add_nc_u32": "add_u32", "sub_nc_u32": "sub_u32", "subrev_nc_u32": "subrev_u32", "add_i32": "add_u32",
           "sub_i32": "sub_u32", "mul_i32": "mul_lo_u32"}  # fmt: skip


def _signed(value: Values) -> Values:
    return (value + WORD // 2) % WORD - WORD // 2


def bitop3(table: int, a: Values, b: Values, c: Values) -> Values:
    """Return v_bitop3_b32: bit n of the table is the result where the bits of a, b and c are those of n."""
    chosen = [(a if n & 4 else ~a) & (b if n & 2 else ~b) & (c if n & 1 else ~c) for n in range(8) if table >> n & 1]
    return np.bitwise_or.reduce([np.zeros_like(a), *chosen])


class Threads:
    """The registers of a block's threads, which start as a kernel's do: v0 is the index of the thread."""

    def __init__(self, threads: int, lanes: int):
        self.threads, self.lanes = threads, lanes
        self.values: dict[str, Values] = {"v0": np.arange(threads, dtype=np.int64)}

    def read(self, operand: str) -> Values | None:
        """Return an operand's value for each thread, None if it is not known."""
        if NUMBER.fullmatch(operand):
            return np.full(self.threads, int(operand, 0) % WORD, dtype=np.int64)
        return self.values.get(operand, None if operand[0] in "va" else np.zeros(self.threads, dtype=np.int64))

    def run(self, one: Instruction) -> None:
        """Execute an instruction."""
        if NO_RESULT.match(one.name):
            return
        results = [(target, self._result(name, sources)) for name, target, sources in _operations(one)]
        for target, value in results:
            self._set(target, value)

    def _result(self, name: str, sources: list[str]) -> Values | None:
        op = OPS.get(RENAMED.get(name, name))
        if name == "readfirstlane_b32":
            op = lambda value: np.repeat(value[:: self.lanes], self.lanes)  # noqa: E731
        elif name == "bitop3_b32" and (last := BITOP.fullmatch(sources[-1])):
            sources = [*sources[:-1], last[1]]
            op = lambda a, b, c: bitop3(int(last[2], 0), a, b, c)  # noqa: E731
        read = [self.read(operand) for operand in sources]
        return op(*read) % WORD if op and all(value is not None for value in read) else None

    def _set(self, target: str, value: Values | None) -> None:
        several = RANGE.fullmatch(target)
        names = [f"{several[1]}{i}" for i in range(int(several[2]), int(several[3]) + 1)] if several else [target]
        for name in names:
            if value is None or several:
                self.values.pop(name, None)
            else:
                self.values[name] = value


def _operations(one: Instruction) -> Iterator[tuple[str, str, list[str]]]:
    """Yield name without v_ or s_, target and sources. An instruction of RDNA may hold two operations."""
    for text in f"{one.name} {one.operands}".split("::"):
        name, _, operands = text.strip().partition(" ")
        target, *sources = (operand.strip() for operand in operands.split(","))
        yield ENCODING.sub("", name.replace("_dual_", "_"))[2:], target, sources
