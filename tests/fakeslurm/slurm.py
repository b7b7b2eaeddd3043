#!/usr/bin/env python3
"""A stand-in for Slurm on one machine: sbatch, srun, sacct or scontrol, by its first argument.

A job is a folder in $FAKESLURM with its command, its submission and its state. $FAKESLURM_LIMIT_SECONDS is the time
limit of each job's first run: then the job's processes get SIGTERM, as Slurm sends it with --signal.
"""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

JOBS = Path(os.environ["FAKESLURM"])
GRACE_SECONDS = 20


def sbatch(arguments: list[str]) -> None:
    number = str(1 + len(list(JOBS.iterdir())))
    folder = JOBS / number
    folder.mkdir()
    options = dict(zip(arguments, [*arguments[1:], ""], strict=True))
    wrapped = next((a.removeprefix("--wrap=") for a in arguments if a.startswith("--wrap=")), None) or options["--wrap"]
    record = {"arguments": arguments, "name": options["--job-name"], "command": wrapped, "cwd": options.get("-D", ".")}
    (folder / "job.json").write_text(json.dumps(record))
    (folder / "state").write_text("PENDING")
    subprocess.Popen([sys.executable, __file__, "job", number], start_new_session=True,
                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    print(number)


def run_job(arguments: list[str]) -> None:
    number = arguments[0]
    folder = JOBS / number
    record = json.loads((folder / "job.json").read_text())
    limit = float(os.environ.get("FAKESLURM_LIMIT_SECONDS", 3600))
    while True:
        (folder / "state").write_text("RUNNING")
        end = str(int(time.time() + limit))
        environment = {**os.environ, "SLURM_JOB_ID": number, "SLURM_JOB_END_TIME": end, "SLURM_CPUS_PER_TASK": "1"}
        with open(folder / "log", "a") as log:
            job = subprocess.Popen(record["command"], shell=True, cwd=record["cwd"], env=environment, stdout=log,
                                   stderr=log, start_new_session=True)  # fmt: skip
            try:
                status = job.wait(limit)
            except subprocess.TimeoutExpired:
                os.killpg(job.pid, signal.SIGTERM)
                status = job.wait(GRACE_SECONDS)
        if not (folder / "requeue").exists():
            (folder / "state").write_text("COMPLETED" if status == 0 else "FAILED")
            return
        (folder / "requeue").rename(folder / "requeued")
        (folder / "state").write_text("PENDING")
        limit = 3600


def sacct(arguments: list[str]) -> None:
    for folder in JOBS.iterdir():
        print(f"{folder.name}|{(folder / 'state').read_text()}")


def scontrol(arguments: list[str]) -> None:
    if arguments[0] == "requeue":
        (JOBS / arguments[1] / "requeue").touch()


def srun(arguments: list[str]) -> None:
    command = list(itertools.dropwhile(lambda argument: argument.startswith("-"), arguments))
    os.execvp(command[0], command)


if __name__ == "__main__":
    _, name, *rest = sys.argv
    {"sbatch": sbatch, "sacct": sacct, "scontrol": scontrol, "srun": srun, "job": run_job}[name](rest)
