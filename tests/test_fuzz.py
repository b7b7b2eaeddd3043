"""Every reader of untrusted bytes, fed with mutated files for a few seconds: bench/fuzz.py does it for hours."""

import faulthandler
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

from hipgpt.base.errors import UserError
from hipgpt.base.paths import ROOT

sys.path.append(str(ROOT / "bench"))
import fuzz  # noqa: E402

RUN_SECONDS = 4
READERS = sorted(fuzz.TARGETS.keys() - {"workflow"})  # whose cases take seconds each
DRY_RUNS = 12


@pytest.mark.slow
@pytest.mark.parametrize("target", READERS)
def test_a_mutated_file_is_read_or_refused_in_one_line(target):
    assert list(fuzz.failures(target, 1, RUN_SECONDS)) == []


@pytest.mark.slow
def test_a_mutated_config_is_planned_or_refused_in_one_line_by_snakemake():
    assert list(fuzz.failures("workflow", 1, 600, most=DRY_RUNS)) == []


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_a_case_is_the_same_whenever_it_is_drawn(target):
    first = [fuzz.files_of(target, 3, case) for case in range(10)]
    assert first == [fuzz.files_of(target, 3, case) for case in range(10)]
    assert first != [fuzz.files_of(target, 4, case) for case in range(10)]


@pytest.mark.parametrize("target", READERS)
def test_some_cases_are_read_to_the_end(target, tmp_path):
    read = 0
    for case in range(40):
        folder = tmp_path / str(case)
        folder.mkdir()
        for name, data in fuzz.files_of(target, 1, case).items():
            (folder / name).write_bytes(data)
        try:
            fuzz.TARGETS[target][1](folder)
            read += 1
        except UserError:
            pass
    assert read > 0


def die() -> None:
    faulthandler.disable()  # its report of a planted signal would look like a real one
    os.kill(os.getpid(), signal.SIGSEGV)


def eat() -> None:
    bytearray(2 * fuzz.EXTRA_BYTES)


def refuse() -> None:
    error = UserError("x")
    error.args = ("two\nlines",)
    raise error


@pytest.mark.parametrize(
    ("defect", "found"),
    [
        (die, "the process died of signal 11"),
        (eat, "MemoryError"),
        (refuse, "a message 'two\\\\nlines'"),
        (lambda: time.sleep(60), "the time of a case is over"),
        (lambda: {}[5], "KeyError: 5"),
        (lambda: sys.exit(0), "SystemExit"),
    ],
)
def test_a_defect_is_found_and_the_cases_after_it_are_read(monkeypatch, capsys, defect, found):
    third = random.Random("planted 1 2").random()

    def read(folder: Path) -> None:
        if (folder / "case").read_bytes() == str(third).encode():
            defect()

    monkeypatch.setitem(fuzz.TARGETS, "planted", (lambda draw: {"case": str(draw.random()).encode()}, read))
    monkeypatch.setattr(fuzz, "CASE_SECONDS", 2)
    [(case, wrong)] = fuzz.failures("planted", 1, 30, most=5)
    assert case == 2 and found in wrong
    assert capsys.readouterr().out == "planted: 5 cases\n"
