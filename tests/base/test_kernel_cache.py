"""The cache of compiled kernels: damaged objects are never used."""

import fcntl
import os
import random
import subprocess
import sys

import pytest

from hipgpt.base.errors import UserError
from hipgpt.base.kernel_cache import WORKING, cache_folder, cached

CONTENT = bytes(range(256)) * 99


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "hipgpt"


class Compiler:
    """Writes CONTENT and counts how often."""

    def __init__(self):
        self.runs = 0

    def __call__(self, path):
        self.runs += 1
        path.write_bytes(CONTENT)


def flip_a_bit(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << random.Random(position).randrange(8)
    path.write_bytes(content)


DAMAGE = {
    "half of it": lambda path: os.truncate(path, len(CONTENT) // 2),
    "4 KB cut from its end": lambda path: os.truncate(path, len(CONTENT) - 4096),
    "no byte": lambda path: os.truncate(path, 0),
    "another object": lambda path: path.write_bytes(b"\x7fELF of another machine"),
    "no hash": lambda path: path.with_name(path.name + ".sha256").unlink(),
    "an empty hash": lambda path: path.with_name(path.name + ".sha256").write_bytes(b""),
    "a hash that is not text": lambda path: path.with_name(path.name + ".sha256").write_bytes(b"\xff\xfe"),
    "gone": lambda path: path.unlink(),
    **{f"bit flip {n}": lambda path, n=n: flip_a_bit(path, n * 631 % len(CONTENT)) for n in range(40)},
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_object_is_compiled_again(damage):
    compiler = Compiler()
    path = cached("kernel.so", compiler)
    assert cached("kernel.so", compiler) == path and compiler.runs == 1
    DAMAGE[damage](path)
    assert cached("kernel.so", compiler) == path and compiler.runs == 2
    assert path.read_bytes() == CONTENT
    assert cached("kernel.so", compiler) == path and compiler.runs == 2


@pytest.mark.parametrize("write", [lambda path: None, lambda path: path.touch()], ids=["nothing", "an empty file"])
def test_a_compiler_that_writes_nothing_is_named_and_leaves_nothing(cache, write):
    with pytest.raises(UserError, match="kernel.so: the compiler ended without an error and wrote nothing; check CXX"):
        cached("kernel.so", write)
    assert not list(cache.iterdir())
    assert cached("kernel.so", Compiler()).read_bytes() == CONTENT


def test_an_error_of_the_compiler_leaves_nothing(cache):
    def fail(path):
        path.write_bytes(b"half")
        raise UserError("no such header")

    with pytest.raises(UserError, match="no such header"):
        cached("kernel.so", fail)
    assert not list(cache.iterdir())


def test_what_killed_compilations_left_is_removed_and_what_others_work_in_stays(cache):
    for name in ("killed", "alive"):
        (cache / f"{name}{WORKING}").mkdir(parents=True)
        (cache / f"{name}{WORKING}" / "kernel.so").write_bytes(b"half")
    (cache / f"older{WORKING}").write_bytes(b"half")
    handle = os.open(cache / f"alive{WORKING}", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    cached("kernel.so", Compiler())
    assert sorted(path.name for path in cache.glob(f"*{WORKING}")) == [f"alive{WORKING}"]
    os.close(handle)


def test_a_killed_compilation_leaves_no_object(cache):
    program = (
        "import time\nfrom hipgpt.base.kernel_cache import cached\n"
        "def make(path):\n path.write_bytes(b'half')\n print('working', flush=True)\n time.sleep(60)\n"
        "cached('kernel.so', make)"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "working\n"
    process.kill()
    process.wait()
    compiler = Compiler()
    assert cached("kernel.so", compiler).read_bytes() == CONTENT and compiler.runs == 1
    assert sorted(path.name for path in cache.iterdir()) == ["kernel.so", "kernel.so.sha256"]


def test_many_processes_get_the_same_whole_object():
    program = (
        "import sys, time\nfrom hipgpt.base.kernel_cache import cached\n"
        "def make(path):\n time.sleep(0.05)\n path.write_bytes(b'x' * 10_000)\n"
        "sys.exit(cached('kernel.so', make).read_bytes() != b'x' * 10_000)"
    )
    processes = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4


def test_a_cache_that_cannot_be_written_is_named(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match="cannot keep compiled kernels here .*; set XDG_CACHE_HOME"):
        cached("kernel.so", Compiler())
    assert cache_folder() == tmp_path / "file" / "hipgpt"
