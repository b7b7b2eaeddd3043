"""`hipgpt why`: which rules would rerun and because of what, in plain words over Snakemake's own reasons."""

import argparse
import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hipgpt.base.errors import UserError
from hipgpt.base.nested import differences
from hipgpt.cli.arguments import Commands, add_command
from hipgpt.pipeline.recipes import STAGES

JOB = re.compile(r"^(?:local)?rule (\w+):\n((?:    .*\n)+)", re.MULTILINE)
FIELD = re.compile(r"^    (\w+): (.*)$", re.MULTILINE)
PARAMS = "Params have changed since last execution: "
MISSING, BY_ANOTHER_JOB = "Missing output files", "Input files updated by another job"
OTHER_INPUTS = "Set of input files has changed since last execution"
PLAIN = {
    "Incomplete output files": "an interrupted job left {}",
    "Updated input files": "changed since: {}",
    OTHER_INPUTS: "it reads other files than before",
    "Code has changed since last execution": "its command in the Snakefile changed",
    "Forced execution": "it is forced",
}


@dataclass(frozen=True)
class Job:
    """A job that would run: its rule, what its files are of, and Snakemake's reason in its parts."""

    rule: str
    wildcards: str
    outputs: tuple[str, ...]
    reason: str

    @property
    def parts(self) -> dict[str, str]:
        """What Snakemake found, by its words for it, without the parameters."""
        parts = filter(None, self.reason.partition(PARAMS)[0].split("; "))
        return {what: files for what, _, files in (part.partition(": ") for part in parts)}

    @property
    def missing(self) -> list[str]:
        """Its absent files, in the order of the rule: Snakemake names them in any order."""
        absent = self.parts.get(MISSING, "").split(", ")
        return [output for output in self.outputs if output in absent]


def add(commands: Commands) -> None:
    about = "say which rules would rerun, and because of what"
    more = "Whatever else is given is handed to snakemake: targets, --configfile, --config (default: all)."
    add_command(commands, why, about, more)


def why(arguments: argparse.Namespace) -> None:
    """Print a line or more for each job that would run."""
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--cores", "1", *arguments.rest]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        ours = (line.removeprefix("error: ") for line in lines if line.startswith("error: "))
        raise UserError(next(ours, f"snakemake: {lines[-1].removeprefix('__main__.py: error: ')}"))
    sys.stdout.write("".join(f"{line}\n" for line in explain(done.stdout)) or "nothing would rerun\n")


def explain(dry_run: str) -> Iterator[str]:
    """Yield lines about the jobs in the output of a dry run, those of one run together, in the pipeline's order."""
    jobs = [_job(match) for match in JOB.finditer(dry_run)]
    jobs = sorted((job for job in jobs if job.rule != "all"), key=lambda job: (_place(job), job.wildcards))
    makers = {output: job for job in jobs for output in job.outputs}
    groups: dict[str, dict[tuple[str, ...], list[str]]] = {}
    for job in jobs:
        causes = tuple(_causes(job, makers)) or (job.reason,)
        groups.setdefault(job.wildcards, {}).setdefault(causes, []).append(job.rule)
    for wildcards, rules_of in groups.items():
        for causes, rules in rules_of.items():
            yield f"{', '.join(rules)}{f' ({wildcards})' if wildcards else ''}: {causes[0]}"
            yield from (f"    {cause}" for cause in causes[1:])


def _job(match: re.Match[str]) -> Job:
    fields = dict(FIELD.findall(match[2]))
    outputs = tuple(fields.get("output", "").split(", "))
    return Job(match[1], fields.get("wildcards", "").replace("=", " "), outputs, fields.get("reason", ""))


def _place(job: Job) -> int:
    return list(STAGES).index(job.rule) if job.rule in STAGES else len(STAGES)


def _causes(job: Job, makers: Mapping[str, Job]) -> Iterator[str]:
    if set(job.missing) == set(job.outputs):
        yield "not made yet"
        return
    yield from _own_causes(job)
    if roots := dict.fromkeys(root.rule for root in sorted(_roots(job, makers), key=_place)):
        *others, last = roots
        yield f"because {', '.join(others)}{' and ' if others else ''}{last} would run"


def _roots(job: Job, makers: Mapping[str, Job]) -> Iterator[Job]:
    """Yield the jobs before this one that have causes of their own, and not only jobs before them."""
    files = filter(None, job.parts.get(BY_ANOTHER_JOB, "").split(", "))
    for maker in dict.fromkeys(makers[file] for file in files if file in makers):
        if next(_own_causes(maker), None):
            yield maker
        else:
            yield from _roots(maker, makers)


def _own_causes(job: Job) -> Iterator[str]:
    _, _, params = job.reason.partition(PARAMS)
    if params:
        yield from _changed_params(params)
    for what, files in job.parts.items():
        if what == MISSING:
            yield f"missing: {', '.join(job.missing)}"
        elif what != BY_ANOTHER_JOB and not (what == OTHER_INPUTS and params):  # which say why
            yield PLAIN.get(what, f"{what}: {files}" if files else what).format(files)


def _changed_params(text: str) -> Iterator[str]:
    """Yield "key before -> after" from Snakemake's two lists of values, of which the recipes are the maps."""
    for before, after in _splits(text):
        old, new = (next((value for value in side if isinstance(value, Mapping)), None) for side in (before, after))
        if old is None or new is None:
            yield "its parameters changed"
            continue
        if "source" not in new:  # a recipe for each run, of a rule that reads all of them
            yield from (f"run {name} is new" for name in new if name not in old)
            yield from (f"run {name} is gone" for name in old if name not in new)
            old, new = ({name: side[name] for name in old if name in new} for side in (old, new))
        for line in dict.fromkeys(differences(old, new)):
            code = re.match(r"(?:\S+\.)?code\.(\w+) ", line)
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
