"""Power losses: whatever a disk may hold after one, a stage ends in the same bytes. bench/power_loss.py does more."""

import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.disk import Entries, Resize, Sync, Write
from support.power_loss import states
from support.system_calls import record

from hipgpt.base.paths import ROOT

sys.path.append(str(ROOT / "bench"))
import power_loss  # noqa: E402

RERUNS = 5  # of each stage


def traces() -> bool:
    command = ["strace", "-qq", "-o", "/dev/null", "true"]
    return shutil.which("strace") is not None and subprocess.run(command, capture_output=True).returncode == 0


needs_strace = pytest.mark.skipif(not traces(), reason="no strace here, or it may not trace")

CAREFUL = """
import os, sys
with open("new", "wb") as file:
    file.write(b"12345678")
    file.flush()
    os.fsync(file.fileno())
os.rename("new", "file")
handle = os.open(".", os.O_RDONLY)
os.fsync(handle)
os.unlink("old")
"""
# what is wrong with each of them, as a disk that only it may leave
CARELESS = {
    "no fsync of the bytes": (CAREFUL.replace("    os.fsync(file.fileno())\n", ""), {"file": b"1234", "old": b"old"}),
    "sizes before bytes": (CAREFUL.replace("    os.fsync(file.fileno())\n", ""), {"file": bytes(8), "old": b"old"}),
    "no fsync of the folder": (CAREFUL.replace("os.fsync(handle)\n", ""), {}),
    "the name before the bytes": (CAREFUL.replace('"new"', '"file"'), {"file": b"1234", "old": b"old"}),
}


def disks(folder: Path, program: str) -> list[dict]:
    folder.mkdir()
    (folder / "old").write_bytes(b"old")
    start, operations = record([sys.executable, "-c", program], folder, cwd=folder)
    return list(states(start, operations, random.Random(1), 4))


@needs_strace
def test_a_careful_program_leaves_the_old_file_or_the_whole_new_one(tmp_path):
    found = disks(tmp_path / "x", CAREFUL)
    assert all(disk.get("file", b"12345678") == b"12345678" for disk in found)
    assert all("old" in disk or "file" in disk for disk in found)
    assert {"old": b"old"} in found and {"file": b"12345678"} in found


@needs_strace
@pytest.mark.parametrize("mistake", CARELESS)
def test_a_mistake_shows_as_a_disk_that_it_may_leave(tmp_path, mistake):
    program, left = CARELESS[mistake]
    assert left in disks(tmp_path / "x", program)
    assert left not in disks(tmp_path / "y", CAREFUL)


@needs_strace
def test_calls_of_several_processes_become_operations_in_order(tmp_path):
    program = (
        "import os, subprocess\nos.mkdir('a')\nos.chdir('a')\nfile = open('f', 'w+b', buffering=0)\nfile.write(b'12')\n"
        "subprocess.run(['sh', '-c', 'printf 34 >&%d; printf 5 >> f' % file.fileno()], pass_fds=[file.fileno()])\n"
        "file.seek(1)\nfile.write(b'x')\nfile.truncate(4)\nos.fsync(file.fileno())\nos.link('f', '../g')\n"
    )
    (tmp_path / "x").mkdir()
    _, operations = record([sys.executable, "-c", program], tmp_path / "x", cwd=tmp_path / "x")
    assert operations == [
        Entries(((0, "a", 1),), new_folder=True),
        Entries(((1, "f", 2),)),
        Write(2, 0, b"12"),
        Write(2, 2, b"34"),
        Write(2, 4, b"5"),
        Write(2, 1, b"x"),
        Resize(2, 4),
        Sync(2),
        Entries(((0, "g", 2),)),
    ]


@pytest.mark.slow
@needs_strace
def test_every_stage_ends_in_the_same_bytes_whatever_a_power_loss_leaves(tmp_path):
    power_loss.prepare()
    work = power_loss.Work(tmp_path / "work")
    for stage in work.stages():
        number, ends = work.check(stage, seed=1, reruns=RERUNS)
        assert number > 5 and len(ends) >= RERUNS
        assert not any(ends), (stage.name, ends)
