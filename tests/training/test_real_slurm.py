"""The Slurm profile on a real Slurm of one machine with two nodes: its daemons are started here and stopped afterwards.

It needs the packages slurmctld, slurmd, slurm-client and munge, root, and a machine without a Slurm of its own, because
the daemons read /etc/slurm/slurm.conf.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.workflow_copy import TINY, Project

pytestmark = pytest.mark.slow
CONF = Path("/etc/slurm/slurm.conf")
DAEMONS = ("munged", "slurmctld", "slurmd")
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
MinJobAge=600
SchedulerParameters=sched_interval=1,bf_interval=1
NodeName=node[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[17001-17002] CPUs={cores} RealMemory=8000
PartitionName=main Nodes=ALL Default=YES
"""
TRAINED = "results/runs/default/metrics.csv"
ENDLESS = {"steps": 10**8, "save_every_steps": 10**8, "validate_every_steps": 10**8, "sample_every_steps": 10**8}


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    if os.geteuid() != 0 or CONF.exists() or not all(map(shutil.which, DAEMONS)):
        pytest.skip(f"needs root, {', '.join(DAEMONS)}, and no Slurm at work here")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool-node1", "spool-node2"):
        (folder / name).mkdir()
    CONF.parent.mkdir(exist_ok=True)
    CONF.write_text(CONFIG.format(host=socket.gethostname().split(".")[0], folder=folder, cores=os.cpu_count()))
    slurmd = [["slurmd", "-D", "-N", node] for node in ("node1", "node2")]
    started = [subprocess.Popen(daemon) for daemon in (["slurmctld", "-D"], *slurmd)]
    try:
        subprocess.run(["install", "-d", "-o", "munge", "/run/munge"], check=True)  # a service manager would make it
        subprocess.run(["runuser", "-u", "munge", "--", "munged", "--force"], check=True)
        until(lambda: told("sinfo", "-h", "-N", "-o", "%T").split() == ["idle", "idle"])
        yield
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait()
        CONF.unlink()
        subprocess.run(["pkill", "-x", "munged"], check=True)


def told(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True).stdout


def until(condition, seconds: int = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.2)


class OnSlurm(Project):
    def command(self, *arguments: str) -> list[str]:
        options = ["--slurm-no-account", "--slurm-status-command", "squeue", "--latency-wait", "5"]
        options += [
            "--slurm-init-seconds-before-status-checks",
            "1",
            "--default-resources",
            "mem_mb=1000",
            "runtime=10",
        ]
        options += ["cpus_per_task=2", "slurm_extra='--signal=TERM@120'"]
        command = [sys.executable, "-m", "snakemake", "--workflow-profile", "profiles/slurm", *options]
        return [*command, "--configfile", "tiny.yaml", "--", *arguments]

    def log(self) -> str:
        path = self.folder / "results/runs/default/logs/train.log"
        return path.read_text() if path.exists() else ""


@pytest.fixture
def project(slurm, tmp_path) -> OnSlurm:
    return OnSlurm(tmp_path)


def test_every_stage_runs_as_a_job(project):
    project.snakemake(TRAINED)
    assert (project.folder / TRAINED).exists()


def test_a_training_on_two_processes_resumes_after_its_time_limit(project):
    """A limit must leave two minutes after the signal, so it is three. A job returns two minutes later."""
    project.write_config({**TINY, "device": "cpu", "devices": 2, "training": {**TINY["training"], **ENDLESS}})
    profile = project.folder / "profiles/slurm/profile.yaml"
    profile.write_text(profile.read_text() + "set-resources:\n  train:\n    runtime: 3\n")
    plain = Project.__new__(Project)
    plain.folder = project.folder
    plain.snakemake("results/corpora/tiny/bpe-290/manifest.json")
    running = project.start(TRAINED)
    until(lambda: re.search(r"resuming after step [^\n]*\n[^\n]* step \d+ of", project.log()), seconds=400)
    first = int(re.search(r"resuming after step (\d+) of", project.log())[1])
    subprocess.run(["scancel", "--user", "root"], check=True)
    until(lambda: "stopped after step" in project.log())
    assert first > 0 and int(re.search(r"stopped after step (\d+) of", project.log())[1]) > first
    os.killpg(running.pid, signal.SIGKILL)  # it would wait for the job, which has gone back into the queue
    running.communicate()


@pytest.mark.parametrize("nodes", [1, 2])
def test_tasks_of_a_job_train_one_model(project, nodes):
    profile = project.folder / "profiles/slurm/profile.yaml"
    resources = f"{{mpi: srun, tasks: 2, nodes: {nodes}, cpus_per_task: 1, mem_mb: 2000}}"
    tasks = f"set-resources:\n  train: {resources}\n"
    profile.write_text(profile.read_text() + tasks)
    project.write_config({**TINY, "device": "cpu"})
    plain = Project.__new__(Project)
    plain.folder = project.folder
    plain.snakemake("results/corpora/tiny/bpe-290/manifest.json")
    project.snakemake(TRAINED)
    assert "parameters on 2 devices, each cpu" in project.log()
    jobs = told("scontrol", "show", "job", "--oneliner").splitlines()
    assert max(int(re.search(r"NumNodes=(\d+)", job)[1]) for job in jobs if "train" in job) == nodes


@pytest.mark.parametrize("nodes", [1, 2])
def test_tasks_of_srun_are_ranks(slurm, nodes):
    places = {1: [("0", "0", "2"), ("1", "1", "2")], 2: [("0", "0", "1"), ("1", "0", "1")]}
    program = "import os; from hipgpt.training.ranks import own_place; print(own_place(os.environ))"
    output = told("srun", "-N", str(nodes), "-n", "2", sys.executable, "-c", program)
    found = re.findall(r"rank=(\d), size=2, local_rank=(\d), local_size=(\d), host='127", output)
    assert sorted(found) == places[nodes]
