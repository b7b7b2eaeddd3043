"""No kernel of the CPU touches memory that is not its own, or does what C++ leaves undefined."""

import os
import subprocess
import sys

import pytest

from hipgpt.base.compiler_answers import host_compiler
from hipgpt.base.paths import ROOT
from hipgpt.compute.backends import cpu


def sanitizer_library() -> str | None:
    """Return g++'s library of the address sanitizer, None if this compiler has none."""
    command = [*host_compiler(), "-print-file-name=libasan.so"]
    path = subprocess.run(command, capture_output=True, encoding="utf-8").stdout.strip()
    return path if os.path.isabs(path) else None


def sanitized(*arguments: str) -> subprocess.CompletedProcess:
    """Run Python with the sanitizer's library loaded first; skip the test if there is none."""
    library = sanitizer_library()
    if library is None:
        pytest.skip("this compiler has no libasan.so")
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, encoding="utf-8", errors="replace",
        env={
            **os.environ, "LD_PRELOAD": library, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
            "ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1", "PYTHONMALLOC": "malloc",
        },
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["cpu", "cpu-avx512bf16"])
@pytest.mark.parametrize("act", ["F32", "BF16"])
def test_every_op_runs_under_the_sanitizers(arch, act):
    if arch != "cpu" and cpu.arch() == "cpu":
        pytest.skip("this processor has no AVX512-BF16")
    done = sanitized("-m", "support.sanitized_ops", arch, act)
    last = done.stdout.splitlines()[-1:]
    assert done.returncode == 0 and last[0].endswith("cases passed"), f"{last}\n{done.stderr[-4000:]}"


@pytest.mark.slow
def test_a_byte_beyond_a_tensor_would_be_seen():
    program = "import ctypes; from support.sanitized_ops import ExactDevice\n"
    program += "address, owner = ExactDevice(1).allocate(128); ctypes.memset(address, 0, {})"
    assert sanitized("-c", program.format(128)).returncode == 0
    done = sanitized("-c", program.format(129))
    assert done.returncode != 0 and "heap-buffer-overflow" in done.stderr
