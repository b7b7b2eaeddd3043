"""`hipgpt why`: show which rules would run again, and the reasons."""

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hipgpt.base.errors import UserError
from hipgpt.cli.arguments import Commands, add_command, add_json, print_json
from hipgpt.cli.run import check_config_files
from hipgpt.pipeline.reasons import Job, explain, grouped


def add(commands: Commands) -> None:
    about = "show which rules would run again, and the reasons"
    more = "All other arguments are passed to snakemake: targets, --configfile, --config (default: all)."
    add_json(add_command(commands, why, about, more))


def why(arguments: argparse.Namespace) -> None:
    """Print a line or more for each job that would run."""
    check_config_files(arguments.rest)
    planned = _planned(arguments.rest)
    if arguments.json:
        print_json([dataclasses.asdict(group) for group in grouped(planned)])
        return
    sys.stdout.write("".join(f"{line}\n" for line in explain(planned)) or "nothing would rerun\n")


def _planned(arguments: Sequence[str]) -> list[Job]:
    with tempfile.TemporaryDirectory() as folder:
        jobs = Path(folder, "jobs.json")
        command = [sys.executable, "-m", "hipgpt.pipeline.planned_jobs", str(jobs), *arguments]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace"
        )
        if done.returncode != 0 or not jobs.exists():
            lines = [line for line in done.stdout.splitlines() if line.strip()]
            ours = (line.removeprefix("error: ") for line in lines if line.startswith("error: "))
            raise UserError(next(ours, f"snakemake: {lines[-1].rpartition('error: ')[2] if lines else 'failed'}"))
        return [Job(**job) for job in json.loads(jobs.read_text(encoding="utf-8"))]
