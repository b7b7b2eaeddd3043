"""Questions to the host's C++ compiler. Answers are stored, so that a warm kernel cache works without a compiler.

The names of cached kernels depend on the compiler's version, on the options it accepts and on what it takes this
processor for. While there is a compiler, it is asked, and its answers are stored in the kernel cache. Where there is
none, the stored answers of the last one count, if it ran on a processor like this one.
"""

import contextlib
import functools
import hashlib
import json
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from hipgpt.base.errors import UserError
from hipgpt.base.files import replacing
from hipgpt.base.kernel_cache import cache_folder

# Lines of /proc/cpuinfo that decide what -march=native stands for; the others are of one core, or change.
PROCESSOR = ("vendor_id", "cpu family", "model", "model name", "stepping", "cache size", "flags",
    "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision", "Features")  # fmt: skip


class CompilerAbsent(UserError):
    """There is no C++ compiler on this machine."""


class Answer(NamedTuple):
    """How the compiler ended. status: 0 if it accepted its options and input."""

    status: int
    output: str
    messages: str


@functools.cache
def host_compiler() -> tuple[str, ...]:
    """Return the C++ compiler's command: $CXX, or the first of c++, g++, clang++ on the PATH.

    Raises CompilerAbsent if there is none, and UserError if CXX is not a program.
    """
    if command := tuple(os.environ.get("CXX", "").split()):
        if shutil.which(command[0]) is None:
            raise UserError(f"CXX: got {command[0]!r}, which is no program here; set it to a C++ compiler or unset it")
        return command
    for name in ("c++", "g++", "clang++"):
        if path := shutil.which(name):
            return (path,)
    raise CompilerAbsent(
        "no C++ compiler found: the CPU kernels and the tokenizer are compiled on first use; "
        "install g++ >= 11 or clang++ >= 14, or set CXX"
    )


@functools.cache
def ask(*options: str, source: str = "") -> Answer:
    """Return the answer of the compiler to these options and this source, or the stored one where there is none.

    Raises CompilerAbsent if no answer is stored either.
    """
    question = json.dumps([options, source])
    try:
        command = host_compiler()
    except CompilerAbsent:
        if stored := _stored().get(question):
            return Answer(*stored)
        raise
    answer = _run(command, options, source)
    _store(question, answer, _version(command))
    return answer


def _run(command: tuple[str, ...], options: tuple[str, ...], source: str) -> Answer:
    done = subprocess.run([*command, *options], input=source.encode(), capture_output=True)
    return Answer(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


@functools.cache
def _version(command: tuple[str, ...]) -> list[str]:
    return [*command, _run(command, ("--version",), "").output]


@functools.cache
def _processor() -> str:
    """Return a hash of what this processor is."""
    lines = [platform.machine(), platform.processor()]
    with contextlib.suppress(FileNotFoundError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        first = file.read().split("\n\n", 1)[0].splitlines()
        lines += [line for line in first if line.partition(":")[0].strip() in PROCESSOR]
    return _sha256(lines)[:24]


def _file() -> Path:
    """Return the path of the answers that hold on processors like this one."""
    return cache_folder() / f"compiler-{_processor()}.json"


def _stored(version: list[str] | None = None) -> dict[str, Any]:
    """Return the stored answers, by question; none if they are damaged, or of another compiler than this version's."""
    try:
        document = json.loads(_file().read_bytes())
        content, whole = document["content"], document["sha256"] == _sha256(document["content"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    answers: dict[str, Any] = content["answers"]
    return answers if whole and version in (None, content["version"]) else {}


def _store(question: str, answer: Answer, version: list[str]) -> None:
    answers = _stored(version)
    if answers.get(question) == [*answer]:
        return
    content = {"version": version, "answers": {**answers, question: answer}}
    # a cache that cannot be written is named when a kernel is compiled; another process may be storing the same answers
    with contextlib.suppress(OSError, UserError), replacing(_file()) as file:
        file.write(json.dumps({"sha256": _sha256(content), "content": content}).encode())


def _sha256(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
