"""How the threads of CPU kernels share work, by their own headers, parallel.h and rounds.h."""

import ctypes
import subprocess

import numpy as np
import pytest

from hipgpt.base.compiler_answers import host_compiler
from hipgpt.base.paths import KERNELS, ROOT


@pytest.fixture(scope="module")
def probe(tmp_path_factory):
    """Return the probe, whose regions have three threads on any machine."""
    library = tmp_path_factory.mktemp("tasks") / "probe.so"
    source = ROOT / "tests" / "support" / "tasks_probe.cpp"
    options = ["-std=c++17", "-O2", "-fopenmp", "-shared", "-fPIC", f"-I{KERNELS}"]
    subprocess.run([*host_compiler(), *options, str(source), "-o", str(library)], check=True)
    loaded = ctypes.CDLL(str(library))
    for function in (loaded.set_threads, loaded.pass_a_slow_thread, loaded.errors_in_rounds, loaded.ranges):
        function.restype = ctypes.c_int64
    before = loaded.set_threads(ctypes.c_int64(3))
    yield loaded
    loaded.set_threads(ctypes.c_int64(before))


def test_a_thread_that_stands_still_delays_only_the_task_that_it_has(probe):
    threads, each, rounds = 3, 7, 20
    taken = np.zeros((rounds, threads, each), np.int32)
    sizes = [ctypes.c_int64(size) for size in (threads, each, rounds)]
    assert probe.pass_a_slow_thread(*sizes, ctypes.c_void_p(taken.ctypes.data)) == 0
    assert (taken == 1).all()


def test_rounds_prepare_a_buffer_before_its_use_and_rewrite_it_only_after(probe):
    threads, preparations, works, rounds = 3, 4, 5, 40
    counted = np.zeros(rounds, np.int32)
    sizes = [ctypes.c_int64(size) for size in (threads, preparations, works, rounds)]
    assert probe.errors_in_rounds(*sizes, ctypes.c_void_p(counted.ctypes.data)) == 0
    assert (counted == threads * works).all()


@pytest.mark.parametrize("count, least, grain", [(1, 1, 1), (2, 1, 1), (1000, 1, 1), (1000, 400, 16), (77, 10, 32)])
def test_ranges_cover_all_items_once_from_multiples_of_the_grain(probe, count, least, grain):
    found = np.zeros((100, 2), np.int64)
    sizes = [ctypes.c_int64(size) for size in (count, least, grain)]
    number = probe.ranges(*sizes, ctypes.c_void_p(found.ctypes.data), ctypes.c_int64(len(found)))
    ranges = sorted(map(tuple, found[:number].tolist()))
    assert [begin for begin, _ in ranges] == [0, *(end for _, end in ranges[:-1])] and ranges[-1][1] == count
    assert all(begin % grain == 0 for begin, _ in ranges)
    assert number <= -(-count // least)
