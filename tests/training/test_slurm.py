"""The Slurm profile against a stand-in Slurm: jobs ask for their run's resources, and continue after the time limit."""

import json
import os
import re
import sys
import time
from pathlib import Path

import pytest
from support import SUPPORT
from support.workflow_copy import ROOT, TINY, Project

from hipgpt.config.reading import read_config
from hipgpt.pipeline.sweeps import load_runs
from hipgpt.training.estimate import HOST_BYTES, job_resources
from hipgpt.training.slurm import requeue_at_the_time_limit

pytestmark = pytest.mark.slow

STAND_IN = SUPPORT / "fakeslurm" / "slurm.py"
RUN = load_runs(read_config(ROOT / "config.yaml")).runs["default"]


class ClusterProject(Project):
    """A project whose PATH leads to the stand-in."""

    def __init__(self, folder: Path, stop_at: str | None = None):
        super().__init__(folder / "project")
        self.jobs, self.tools, self.stop_at = folder / "jobs", folder / "bin", stop_at
        profile = self.folder / "profiles/slurm/profile.yaml"
        profile.write_text(profile.read_text().replace("# slurm_partition: gpu", "slurm_partition: short"))
        self.jobs.mkdir()
        self.tools.mkdir()
        for name in ("sbatch", "sacct", "squeue", "scontrol", "srun"):
            tool = self.tools / name
            tool.write_text(f'#!/bin/sh\nexec {sys.executable} {STAND_IN} {name} "$@"\n')
            tool.chmod(0o755)

    def environment(self) -> dict[str, str]:
        path = f"{self.tools}{os.pathsep}{os.environ['PATH']}"
        stop = {"FAKESLURM_STOP_AT": self.stop_at} if self.stop_at else {}
        return {**super().environment(), "FAKESLURM": str(self.jobs), **stop, "PATH": path}

    def command(self, *arguments: str) -> list[str]:
        options = ["--slurm-no-account", "--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "5"]
        command = [sys.executable, "-m", "snakemake", "--workflow-profile", "profiles/slurm", *options]
        return [*command, *arguments, "--configfile", "tiny.yaml"]

    def without_the_cluster(self) -> Project:
        plain = Project.__new__(Project)
        plain.folder = self.folder
        return plain

    def submissions(self) -> dict[str, str]:
        """Return each rule's sbatch call."""
        calls = [json.loads(path.read_text())["arguments"] for path in sorted(self.jobs.glob("*/job.json"))]
        comments = [call[call.index("--comment") + 1] for call in calls]
        rules = [comment.split("_wildcards")[0].removeprefix("rule_") for comment in comments]
        return {rule: " ".join(call) for rule, call in zip(rules, calls, strict=True)}


@pytest.fixture
def cluster(tmp_path):
    pytest.importorskip("snakemake_executor_plugin_slurm", reason="needs pip install -e '.[slurm]'")
    return lambda **options: ClusterProject(tmp_path, **options)


def test_every_stage_is_a_job_with_its_resources(cluster):
    project = cluster()
    project.snakemake("results/runs/default/metrics.csv")
    calls = project.submissions()
    assert set(calls) == {"download", "train_tokenizer", "tokenize", "manifest", "train"}
    run = load_runs(read_config(project.folder / "config.yaml", project.folder / "tiny.yaml")).runs["default"]
    expected = job_resources(run.model, run.training, "auto", 1)
    assert f"--mem {expected['mem_mb']} " in calls["train"] and f"-t {expected['runtime']} " in calls["train"]
    assert "--signal=TERM@120" in calls["train"] and "--requeue" in calls["train"]
    assert "--gpus" not in calls["train"]
    assert "--mem 4000 " in calls["tokenize"]
    assert all("--cpus-per-task=8 " in call for call in calls.values())
    assert (project.folder / "results/runs/default/metrics.csv").exists()


def test_a_run_that_meets_its_time_limit_saves_and_resumes_from_the_queue(cluster, tmp_path):
    project, undisturbed = cluster(stop_at="results/runs/default/metrics.csv"), Project(tmp_path / "undisturbed")
    training = {**TINY["training"], "steps": 2000, "save_every_steps": 100000, "validate_every_steps": 500}
    for one in (project, undisturbed):
        one.write_config({**TINY, "training": training, "evaluation": {"stride_tokens": 8}})
    project.without_the_cluster().snakemake(
        "results/corpora/tiny/bpe-290/manifest.json"
    )  # a job waits 10 s for its check
    project.snakemake("results/runs/default/metrics.csv")
    (requeued,) = project.jobs.glob("*/requeued")
    log = requeued.with_name("log").read_text()
    assert "SIGTERM: finishing this step, then saving" in log and "goes back into the queue" in log
    stopped = re.search(r"stopped after step (\d+) of", log)[1]
    assert f"resuming after step {stopped} of" in log
    undisturbed.snakemake("results/runs/default/metrics.csv")
    for name in ("metrics.csv", "validation.csv", "checkpoints/last.safetensors"):
        path = f"results/runs/default/{name}"
        assert (project.folder / path).read_bytes() == (undisturbed.folder / path).read_bytes()


@pytest.mark.parametrize(
    ("environment", "asked"),
    [
        ({}, False),
        ({"SLURM_JOB_ID": "8"}, False),  # squeue says that it has no end
        ({"SLURM_JOB_ID": "9"}, False),  # scancel: squeue says that it ends in hours
        ({"SLURM_JOB_ID": "7"}, True),
        ({"SLURM_JOB_ID": "7", "SLURM_JOB_END_TIME": str(int(time.time()) + 5000)}, False),  # scancel
        ({"SLURM_JOB_ID": "7", "SLURM_JOB_END_TIME": str(int(time.time()) + 100)}, True),
        ({"SLURM_JOB_ID": "7", "SLURM_JOB_END_TIME": str(int(time.time()) - 100)}, True),
    ],
)
def test_only_a_job_near_its_end_is_put_back(monkeypatch, tmp_path, environment, asked):
    tool = tmp_path / "scontrol"
    tool.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n')
    tool.chmod(0o755)
    ends = {"7": time.time() + 100, "9": time.time() + 9000}
    for job, end in ends.items():
        (tmp_path / job).write_text(time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(end)))
    (tmp_path / "8").write_text("N/A")
    squeue = tmp_path / "squeue"
    squeue.write_text(f'#!/bin/sh\ncat "{tmp_path}/$3"\n')
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert requeue_at_the_time_limit(environment) is asked
    assert (tmp_path / "calls").exists() is asked
    if asked:
        assert (tmp_path / "calls").read_text() == "requeue 7\n"


def test_a_refusal_of_slurm_is_told_and_is_not_an_error(monkeypatch, tmp_path, caplog):
    tool = tmp_path / "scontrol"
    tool.write_text("#!/bin/sh\necho 'slurm_requeue error: Access denied' >&2; exit 1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert not requeue_at_the_time_limit({"SLURM_JOB_ID": "7", "SLURM_JOB_END_TIME": "0"})
    assert "scontrol requeue 7: slurm_requeue error: Access denied; start the workflow again to continue" in caplog.text


def test_a_gpu_is_asked_for_by_name_only_and_memory_on_it_is_not_the_host_s():
    on_cpu, on_gpu, either = (job_resources(RUN.model, RUN.training, name, 1) for name in ("cpu", "cuda:1", "auto"))
    assert (on_cpu["gpu"], on_gpu["gpu"], either["gpu"]) == (0, 1, 0)
    assert on_gpu["mem_mb"] < on_cpu["mem_mb"] and on_gpu["mem_mb"] * 1e6 >= HOST_BYTES
    assert on_gpu["runtime"] < on_cpu["runtime"]


def test_the_estimated_time_is_more_than_the_default_run_needed():
    minutes_on_one_core = 4  # README.md
    assert job_resources(RUN.model, RUN.training, "cpu", 1)["runtime"] > minutes_on_one_core
