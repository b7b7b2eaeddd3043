"""Feed mutated files to every reader of untrusted bytes: each must succeed or be refused in one line.

    python bench/fuzz.py --seconds 60 [--target NAME] [--seed N]
    python bench/fuzz.py --target NAME --seed N --case N

A case is drawn from target, seed and its number alone. It runs in a process of its own limits of time and memory.
Anything but success or a UserError of one printable line is a failure: a signal, a hang, another exception. Its files
are saved, and the command that repeats it is printed. Exit status 1 if there was one.
"""

import argparse
import contextlib
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from support.fuzz_targets import TARGETS  # noqa: E402

from hipgpt.base.errors import UserError  # noqa: E402
from hipgpt.base.log import LOG  # noqa: E402

CASE_SECONDS = 60  # a dry run of Snakemake takes several, and more on a busy machine
EXTRA_BYTES = 3 << 30  # of address space, more than the process has before it reads the first case


def files_of(target: str, seed: int, case: int) -> dict[str, bytes]:
    """Return the files of a case."""
    return TARGETS[target][0](random.Random(f"{target} {seed} {case}"))


def outcome(target: str, seed: int, case: int) -> str | None:
    """Read a case here; return what is wrong, None if nothing is."""
    with tempfile.TemporaryDirectory() as folder:
        for name, data in files_of(target, seed, case).items():
            (Path(folder) / name).write_bytes(data)
        try:
            TARGETS[target][1](Path(folder))
        except UserError as error:
            return None if str(error).isprintable() and len(str(error)) < 2000 else f"a message {str(error)[:2000]!r}"
        except BaseException:
            return traceback.format_exc()
    return None


def work(target: str, seed: int, first: int, pipe: int) -> None:
    """Read case after case, and say through the pipe which one begins and what was wrong with it."""
    with open("/proc/self/statm", encoding="ascii") as file:
        limit = int(file.read().split()[0]) * resource.getpagesize() + EXTRA_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    LOG.disabled = True
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    case = first
    while True:
        os.write(pipe, f"{case}\n".encode())
        if wrong := outcome(target, seed, case):
            os.write(pipe, f"{case} {wrong[-3000:]!r}\n".encode())
        case += 1


def failures(
    target: str, seed: int, seconds: float, first: int = 0, most: int | None = None
) -> Iterator[tuple[int, str]]:
    """Yield the number of each case that failed, and how, for so many seconds or cases."""
    deadline, case, last = time.monotonic() + seconds, first, None if most is None else first + most - 1
    while time.monotonic() < deadline and (last is None or case <= last):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                os.close(reading)
                work(target, seed, case, writing)
            os._exit(1)
        os.close(writing)
        ended = "the time of a case is over"
        with open(reading, "rb", buffering=0) as pipe:
            begun, lines = case - 1, b""
            while select.select([pipe], [], [], CASE_SECONDS)[0]:
                data = pipe.read(1 << 16)
                if not data:
                    ended = "the process died"
                    break
                *whole, lines = (lines + data).split(b"\n")
                for line in whole:
                    number, _, wrong = line.decode().partition(" ")
                    begun = int(number)
                    if wrong and (last is None or begun <= last):
                        yield begun, wrong
                if time.monotonic() > deadline or (last is not None and begun > last):
                    ended = ""
                    break
        os.kill(child, signal.SIGKILL) if ended != "the process died" else None
        _, status = os.waitpid(child, 0)
        if ended:
            how = f" of signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) and ended == "the process died" else ""
            yield begun, ended + how
        case = begun + 1 if last is None else min(begun, last) + 1
    print(f"{target}: {case - first:,} cases", flush=True)


def save(target: str, seed: int, case: int) -> Path:
    """Write the files of a case where people can look at them; return the folder."""
    folder = Path(f"fuzz-{target}-{seed}-{case}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, data in files_of(target, seed, case).items():
        (folder / name).write_bytes(data)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="in all, shared by the targets")
    parser.add_argument("--target", choices=TARGETS, help="one of them (default: all)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--case", type=int, help="repeat this one alone")
    arguments = parser.parse_args()
    targets, failed = [arguments.target] if arguments.target else [*TARGETS], 0
    for target in targets:
        seconds = arguments.seconds / len(targets)
        most = None if arguments.case is None else 1
        for case, wrong in failures(target, arguments.seed, seconds, arguments.case or 0, most):
            failed += 1
            shown = wrong.replace("\\n", "\n")
            print(f"{target}: case {case}: {shown}\nsaved in {save(target, arguments.seed, case)}; to repeat:")
            print(f"    python bench/fuzz.py --target {target} --seed {arguments.seed} --case {case}", flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
