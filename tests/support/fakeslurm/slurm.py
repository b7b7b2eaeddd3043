#!/usr/bin/env python3
"""A stand-in for Slurm on one machine: sbatch, srun, sacct, squeue or scontrol, by its first argument.

A job is a folder in $FAKESLURM with its command, its submission and its state. Once the file $FAKESLURM_STOP_AT has
STOP_AT_LINES lines, the time limit of a job in its first run is near: the processes of its step, but not its batch
script, get SIGTERM, as Slurm sends it with --signal.
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
GRACE_SECONDS = 120
STOP_AT_LINES = 100
NEAR_SECONDS, FAR_SECONDS = 60, 3600


def sbatch(arguments: list[str]) -> None:
    number, folder = new_job()
    options = dict(zip(arguments, [*arguments[1:], ""], strict=True))
    wrapped = next((a.removeprefix("--wrap=") for a in arguments if a.startswith("--wrap=")), None) or options["--wrap"]
    record = {"arguments": arguments, "name": options["--job-name"], "command": wrapped, "cwd": options.get("-D", ".")}
    (folder / "job.json").write_text(json.dumps(record))
    set_state(folder, "PENDING")
    subprocess.Popen([sys.executable, __file__, "job", number], start_new_session=True,
                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    print(number)


def new_job() -> tuple[str, Path]:
    """Make the folder of the next free number. Snakemake may submit several jobs at the same time."""
    number = 1
    while True:
        folder = JOBS / str(number)
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
        else:
            return folder.name, folder


def set_state(folder: Path, state: str) -> None:
    """Replace the state at once, because sacct may read it at any time."""
    part = folder / "state.part"
    part.write_text(state)
    part.replace(folder / "state")


def run_job(arguments: list[str]) -> None:
    number = arguments[0]
    folder = JOBS / number
    record = json.loads((folder / "job.json").read_text())
    stop_at = Path(record["cwd"], os.environ["FAKESLURM_STOP_AT"]) if "FAKESLURM_STOP_AT" in os.environ else None
    while True:
        set_state(folder, "RUNNING")
        (folder / "end").write_text(str(int(time.time() + (NEAR_SECONDS if stop_at else FAR_SECONDS))))
        environment = {**os.environ, "SLURM_JOB_ID": number}
        with open(folder / "log", "a") as log:
            job = subprocess.Popen(record["command"], shell=True, cwd=record["cwd"], env=environment, stdout=log,
                                   stderr=log, start_new_session=True)  # fmt: skip
            while job.poll() is None and not (stop_at and has_lines(stop_at)):
                time.sleep(0.05)
            if job.poll() is None:
                os.killpg(int((folder / "step").read_text()), signal.SIGTERM)
            status = job.wait(GRACE_SECONDS)
        if not (folder / "requeue").exists():
            set_state(folder, "COMPLETED" if status == 0 else "FAILED")
            return
        (folder / "requeue").rename(folder / "requeued")
        set_state(folder, "PENDING")
        stop_at = None


def has_lines(path: Path) -> bool:
    return path.exists() and path.read_bytes().count(b"\n") >= STOP_AT_LINES


def sacct(arguments: list[str]) -> None:
    for state in JOBS.glob("*/state"):
        print(f"{state.parent.name}|{state.read_text()}")


def scontrol(arguments: list[str]) -> None:
    if arguments[0] == "requeue":
        (JOBS / arguments[1] / "requeue").touch()


def srun(arguments: list[str]) -> None:
    job = os.environ["SLURM_JOB_ID"]
    os.setpgid(0, 0)
    (JOBS / job / "step").write_text(str(os.getpid()))
    os.environ["SLURM_JOB_END_TIME"] = (JOBS / job / "end").read_text()  # as of Slurm 22.05
    command = list(itertools.dropwhile(lambda argument: argument.startswith("-"), arguments))
    os.execvp(command[0], command)


if __name__ == "__main__":
    _, name, *rest = sys.argv
    {"sbatch": sbatch, "sacct": sacct, "squeue": sacct, "scontrol": scontrol, "srun": srun, "job": run_job}[name](rest)
