"""`hipgpt why`: which rules would rerun and because of what, in plain words over Snakemake's own reasons."""

import argparse
import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hipgpt.checkpoint import differences
from hipgpt.commands.arguments import Commands
from hipgpt.errors import UserError

JOB = re.compile(r"^(?:local)?rule (\w+):\n((?:    .*\n)+)", re.MULTILINE)
FIELD = re.compile(r"^    (\w+): (.*)$", re.MULTILINE)
PARAMS = "Params have changed since last execution: "
PLAIN = {
    "Missing output files": "missing: {}",
    "Incomplete output files": "an interrupted job left {}",
    "Updated input files": "changed since: {}",
    "Set of input files has changed since last execution": "it reads other files than before",
    "Code has changed since last execution": "its command in the Snakefile changed",
    "Forced execution": "it is forced",
}
BY_ANOTHER_JOB = "Input files updated by another job"


@dataclass(frozen=True)
class Job:
    """A job that would run: its rule, what its files are of, and Snakemake's reason."""

    rule: str
    wildcards: str
    outputs: tuple[str, ...]
    reason: str


def add(commands: Commands) -> None:
    about = "say which rules would rerun, and because of what"
    more = "Whatever else is given is handed to snakemake: targets, --configfile, --config (default: all)."
    parser = commands.add_parser("why", help=about, description=about, epilog=more)
    parser.set_defaults(command=why)


def why(arguments: argparse.Namespace) -> None:
    """Print a line or more for each job that would run."""
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--cores", "1", *arguments.rest]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        reason = next((line for line in done.stdout.splitlines() if line.startswith("error: ")), None)
        raise UserError(reason.removeprefix("error: ") if reason else f"snakemake says:\n{done.stdout}")
    sys.stdout.write("".join(f"{line}\n" for line in explain(done.stdout)) or "nothing would rerun\n")


def explain(dry_run: str) -> Iterator[str]:
    """Yield lines about the jobs in the output of a dry run."""
    jobs = [_job(match) for match in JOB.finditer(dry_run)]
    jobs = [job for job in jobs if job.rule != "all"]
    maker = {output: job.rule for job in jobs for output in job.outputs}
    for job in jobs:
        causes = list(_causes(job, maker)) or [job.reason]
        yield f"{job.rule}{f' ({job.wildcards})' if job.wildcards else ''}: {causes[0]}"
        yield from (f"    {cause}" for cause in causes[1:])


def _job(match: re.Match[str]) -> Job:
    fields = dict(FIELD.findall(match[2]))
    outputs = tuple(fields.get("output", "").split(", "))
    return Job(match[1], fields.get("wildcards", "").replace("=", " "), outputs, fields.get("reason", ""))


def _causes(job: Job, maker: Mapping[str, str]) -> Iterator[str]:
    reason, _, params = job.reason.partition(PARAMS)
    if params:
        yield from _changed_params(params)
    for part in filter(None, reason.split("; ")):
        what, _, files = part.partition(": ")
        if what == BY_ANOTHER_JOB:
            rules = dict.fromkeys(maker.get(file, file) for file in files.split(", "))
            yield f"because {' and '.join(rules)} would run"
        else:
            yield PLAIN.get(what, part).format(files)


def _changed_params(text: str) -> Iterator[str]:
    """Yield "key before -> after" from Snakemake's two lists of values, of which the recipes are the maps."""
    for before, after in _splits(text):
        old, new = (next((value for value in side if isinstance(value, Mapping)), None) for side in (before, after))
        if old is None or new is None:
            yield "its parameters changed"
            continue
        for line in dict.fromkeys(differences(old, new)):
            code = re.match(r"(?:\w+\.)?code\.(\w+) ", line)
            yield f"the code of {code[1]} changed" if code else line.removeprefix("source.")


def _splits(text: str) -> Iterator[tuple[list[Any], list[Any]]]:
    """Yield the values before and now; the word between them may also stand in a value."""
    text = text.partition("before: ")[2].split("; Software environment")[0]
    pieces = text.split(" now: ")
    for cut in range(1, len(pieces)):
        sides = [" now: ".join(half) for half in (pieces[:cut], pieces[cut:])]
        try:
            before, after = (ast.literal_eval(f"[{side}]") for side in sides)
        except (SyntaxError, ValueError):
            continue
        yield before, after
        return
    yield [], []
