"""Measure programs side by side: each lives in a process of its own, and they take turns (A B A B).

Turns of about a second meet the same disturbances on a machine that others use too. So the ratio within a round says
more than a time. The median of the rounds is reported.
"""

import contextlib
import ctypes.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

Name = TypeVar("Name")
Program = tuple[Sequence[str], Mapping[str, str]]  # a command and its environment

# by the name that HIPGPT_ISA has for an instruction set: what PyTorch, oneDNN and MKL call it
PEER_ISA = {
    "sse4": ("default", "SSE41", "SSE4_2"),
    "avx2": ("avx2", "AVX2", "AVX2"),
    "avx512": ("avx512", "AVX512_CORE", "AVX512"),
    "avx512-bf16": ("avx512", "AVX512_CORE_BF16", "AVX512"),
    "amx": ("avx512", "AVX512_CORE_AMX", "AVX512"),
}
PEER_VARIABLES = "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS"


def environment(is_peer: bool, isa: str | None) -> dict[str, str]:
    """Return the environment of a program that uses at most an instruction set.

    PyTorch gets tcmalloc if the machine has it (Debian's libtcmalloc-minimal4), because it is faster with it.
    """
    variables = dict(os.environ)
    if is_peer and (tcmalloc := ctypes.util.find_library("tcmalloc_minimal")):
        variables["LD_PRELOAD"] = tcmalloc
    if isa:
        variables |= dict(zip(PEER_VARIABLES, PEER_ISA[isa], strict=True)) if is_peer else {"HIPGPT_ISA": isa}
    return variables


def median_seconds(run: Callable[[], object], seconds: float) -> float:
    """Return the median time of run(), called for so many seconds and at least three times."""
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def serve(measure: Callable[[], object]) -> None:
    """Answer each line of standard input with a measurement, until it ends."""
    for _ in sys.stdin:
        print(json.dumps(measure()), flush=True)


@contextlib.contextmanager
def _started(command: Sequence[str], variables: Mapping[str, str]) -> Iterator[Callable[[], float]]:
    """Start a program that serves; yield a function that returns its next measurement."""
    program = subprocess.Popen(command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8")
    assert program.stdin and program.stdout

    def measure() -> float:
        program.stdin.write("\n")
        program.stdin.flush()
        if not (line := program.stdout.readline()):
            raise SystemExit(f"{' '.join(command)} ended without a measurement, with exit status {program.wait()}")
        return json.loads(line)

    try:
        yield measure
    finally:
        program.stdin.close()
        program.wait()


def take_turns(programs: Mapping[Name, Program], rounds: int) -> dict[Name, list[Any]]:
    """Return the measurements of each round, by the names of the programs.

    Each program is measured once before the first round, because caches and compilers are cold then.
    """
    with contextlib.ExitStack() as stack:
        measures = {name: stack.enter_context(_started(*program)) for name, program in programs.items()}
        for measure in measures.values():
            measure()
        taken = {name: [] for name in programs}
        for _ in range(rounds):
            for name, measure in measures.items():
                taken[name].append(measure())
    return taken
