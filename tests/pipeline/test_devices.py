"""`devices: N` in the workflow: a run trains on several processes, resumes on another number, and survives a death."""

import os
import re
import shutil
import signal
import time
from pathlib import Path

import pandas as pd
import pytest
from support.workflow_copy import Project

pytestmark = pytest.mark.slow
TRAINED = "results/runs/default/run.json"
SETTINGS = ("--config", "device=cpu")
LONG = (*SETTINGS, "training={steps: 100000, save_every_steps: 50, validate_every_steps: 100000}")


def process_of_rank(project: Project, rank: int) -> int | None:
    for path in Path("/proc").glob("[0-9]*"):
        try:
            mine = os.readlink(path / "cwd") == str(project.folder)
            if mine and f"RANK={rank}".encode() in (path / "environ").read_bytes().split(b"\0"):
                return int(path.name)
        except OSError:  # it has ended
            continue
    return None


def saved(project: Project) -> bool:
    return any(project.folder.glob("results/runs/default/state/*/step_*"))


def start_and_wait_for_a_state(project: Project):
    shutil.rmtree(project.folder / "results/runs/default/state", ignore_errors=True)
    running = project.start(TRAINED, *LONG, "devices=2")
    while not saved(project):
        assert running.poll() is None, running.communicate()[0]
        time.sleep(0.05)
    return running


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    project = Project(tmp_path_factory.mktemp("project"))
    project.snakemake(TRAINED, *SETTINGS)
    return project


def metrics(project):
    return pd.read_csv(project.folder / "results/runs/default/metrics.csv")


def test_another_number_of_devices_reruns_nothing_and_trains_the_same_model(project):
    one = metrics(project)
    assert "Nothing to be done" in project.snakemake(TRAINED, *SETTINGS, "devices=2")
    shutil.rmtree(project.folder / "results/runs/default/state")
    project.snakemake(TRAINED, *SETTINGS, "devices=2", "--forcerun", "train")
    two = metrics(project)
    assert two["step"].tolist() == one["step"].tolist()
    assert two["loss_nats_per_token"].to_numpy() == pytest.approx(one["loss_nats_per_token"].to_numpy(), rel=1e-3)
    log = (project.folder / "results/runs/default/logs/train.log").read_text()
    assert re.search("parameters on 2 devices, each cpu .* \\(1 thread\\)", log)


def test_a_rank_that_is_killed_ends_the_run_and_a_rerun_resumes_on_one_device(project):
    running = start_and_wait_for_a_state(project)
    os.kill(process_of_rank(project, 1), signal.SIGKILL)
    killed = time.monotonic()
    output = running.communicate()[0]
    assert time.monotonic() - killed < 30
    assert running.returncode == 1 and "Traceback" not in output
    assert "rank 1 of 2 has ended" in output or "rank 1 of 2 was ended by SIGKILL" in output
    assert process_of_rank(project, 0) is None

    state = max(project.folder.glob("results/runs/default/state/*/step_*"))
    step = int(state.name.removeprefix("step_"))
    before = pd.read_csv(state / "metrics.csv")
    resumed = project.start(TRAINED, *LONG)
    while not any(path.name > state.name for path in state.parent.glob("step_*")):
        assert resumed.poll() is None, resumed.communicate()[0]
        time.sleep(0.05)
    os.killpg(resumed.pid, signal.SIGTERM)
    output = resumed.communicate()[0]
    assert f"resuming after step {step} of 100000" in output
    after = pd.read_csv(max(state.parent.glob("step_*")) / "metrics.csv")
    assert len(after) > step
    pd.testing.assert_frame_equal(after[:step], before[:step])


def test_a_signal_saves_the_state_and_ends_all_ranks(project):
    running = start_and_wait_for_a_state(project)
    os.killpg(running.pid, signal.SIGTERM)
    output = running.communicate()[0]
    assert re.search(r"stopped after step \d+ of 100000, state saved", output)
    assert [process_of_rank(project, rank) for rank in (0, 1)] == [None, None]
