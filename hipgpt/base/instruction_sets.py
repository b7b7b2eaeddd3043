"""Instruction sets of x86-64 that kernels can be compiled for in place of this processor's own.

$HIPGPT_ISA names one, so that the code for an older processor can be tested and timed on a newer one.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass

from hipgpt.base.errors import UserError

VARIABLE = "HIPGPT_ISA"


@dataclass(frozen=True)
class InstructionSet:
    """options: of g++ and clang++. macro: the compiler defines it for every processor that has the instructions."""

    options: tuple[str, ...]
    macro: str


_AVX512_BF16 = ("-march=x86-64-v4", "-mavx512bf16")
INSTRUCTION_SETS = {
    "sse4": InstructionSet(("-march=x86-64-v2",), "__SSE4_2__"),
    "avx2": InstructionSet(("-march=x86-64-v3",), "__AVX2__"),
    "avx512": InstructionSet(("-march=x86-64-v4",), "__AVX512BW__"),
    "avx512-bf16": InstructionSet(_AVX512_BF16, "__AVX512BF16__"),
    "amx": InstructionSet((*_AVX512_BF16, "-mamx-tile", "-mamx-bf16"), "__AMX_BF16__"),
}


def wanted_options(native_macros: Callable[[], frozenset[str]]) -> tuple[str, ...] | None:
    """Return the options for the instruction set that $HIPGPT_ISA names, None if it is unset.

    native_macros: returns the macros that the compiler defines for this processor.
    Raises UserError if the name is unknown or this processor lacks the instructions.
    """
    name = os.environ.get(VARIABLE)
    if not name:
        return None
    if name not in INSTRUCTION_SETS:
        expected = ", ".join(INSTRUCTION_SETS)
        raise UserError(f"{VARIABLE}: got {name!r}; expected one of {expected}, or unset it to use all that there is")
    present = [one for one, wanted in INSTRUCTION_SETS.items() if wanted.macro in native_macros()]
    if name not in present:
        raise UserError(f"{VARIABLE}: got {name!r}, but this processor has {', '.join(present) or 'none of them'}")
    return (*INSTRUCTION_SETS[name].options, "-mtune=native")
