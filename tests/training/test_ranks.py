"""The place of a rank, read from its environment, and ranks that are started, fail and end together."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from hipgpt.base.errors import UserError
from hipgpt.base.paths import ROOT
from hipgpt.training.ranks import Place, own_place, run_ranks

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", "MASTER_ADDR": "node7"}
SRUN = {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1", "SLURM_STEP_TASKS_PER_NODE": "4(x2)"}


def test_a_process_without_such_variables_trains_alone():
    assert own_place({}) is None
    assert own_place({"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}) is None
    assert own_place({"RANK": "0", "WORLD_SIZE": "1"}) is None


def test_torchrun_s_variables_are_read():
    assert own_place(TORCHRUN | {"MASTER_PORT": "29500"}) == Place(5, 8, 1, 4, "node7", 29500)


def test_srun_s_variables_are_read():
    job = {"SLURM_JOB_ID": "1234567", "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.7"}
    assert own_place(SRUN | job) == Place(5, 8, 1, 4, "10.0.0.7", 20_000 + 1234567 % 40_000)


@pytest.mark.parametrize("environment", [TORCHRUN, TORCHRUN | {"MASTER_PORT": "http"}, SRUN])
def test_variables_that_are_missing_or_no_numbers_are_refused(environment):
    with pytest.raises(UserError, match="variables of a rank: .*; start the ranks by `devices`, torchrun or srun"):
        own_place(environment)


def ranks(tmp_path, program, count=3):
    """Run a program that sees `rank` and `done`, a function that leaves a file."""
    before = f"import os, sys, time, signal\nrank = int(os.environ['RANK'])\nos.chdir({str(tmp_path)!r})\n"
    before += "done = lambda: open(f'{rank}', 'w').close()\n"
    run_ranks([sys.executable, "-c", before + program], count)


def finished(tmp_path):
    return sorted(int(path.name) for path in tmp_path.iterdir())


def test_all_ranks_run_and_know_their_places(tmp_path):
    names = ("WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR")
    ranks(tmp_path, f"assert [os.environ[n] for n in {names}] == ['3', str(rank), '3', '127.0.0.1']; done()")
    assert finished(tmp_path) == [0, 1, 2]


@pytest.mark.parametrize(
    "end, words",
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "was ended by SIGKILL"),
        ("sys.exit(3)", "ended with status 3"),
        ("sys.stdin.close(); int('x')", "ended with status 1"),
    ],
)
def test_a_rank_that_ends_badly_is_named_and_ends_the_others(tmp_path, monkeypatch, end, words):
    monkeypatch.setattr("hipgpt.training.ranks.SECONDS_TO_END", 0.5)
    started = time.monotonic()
    with pytest.raises(UserError, match=f"rank 1 of 3 {words}, so the other ranks were ended; the same command"):
        ranks(tmp_path, f"if rank == 1: {end}\ntime.sleep(60)")
    assert time.monotonic() - started < 30


def test_rank_0_that_has_said_why_it_ends_gives_its_status(tmp_path):
    with pytest.raises(SystemExit) as ended:
        ranks(tmp_path, "if rank == 0: sys.exit(1)")
    assert ended.value.code == 1


@pytest.fixture
def starter(tmp_path):
    """A process with two ranks, of which rank 0 leaves the file `saved` at SIGTERM."""
    rank = f"""
import os, signal, sys, time
sys.path.insert(0, {str(ROOT)!r})
from hipgpt.training.ranks import stop_without_parent
if os.environ["RANK"] == "0":
    signal.signal(signal.SIGTERM, lambda *_: (open({str(tmp_path / "saved")!r}, "w").close(), os._exit(1)))
    stop_without_parent()
open({str(tmp_path)!r} + "/up" + os.environ["RANK"], "w").close()
time.sleep(60)
"""
    program = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from hipgpt.training import ranks
ranks.SECONDS_TO_END = 0.5
ranks.run_ranks([sys.executable, "-c", {rank!r}], 2)
"""
    process = subprocess.Popen([sys.executable, "-c", program], start_new_session=True)
    while not ((tmp_path / "up0").exists() and (tmp_path / "up1").exists()):
        time.sleep(0.02)
    yield process
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def test_signals_go_to_rank_0_which_ends_in_its_own_way(starter, tmp_path):
    os.kill(starter.pid, signal.SIGTERM)
    assert starter.wait(30) == 1
    assert (tmp_path / "saved").exists()


def test_rank_0_stops_if_the_starter_is_killed(starter, tmp_path):
    starter.kill()
    starter.wait()
    deadline = time.monotonic() + 30
    while not (tmp_path / "saved").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
