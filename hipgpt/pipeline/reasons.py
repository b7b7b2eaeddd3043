"""The reasons for which jobs would run, in plain words."""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hipgpt.base.nested import differences
from hipgpt.base.terminal import first_of
from hipgpt.pipeline.recipes import STAGES

MOST_NAMES = 2  # of runs or files, in a line
SHA256 = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")  # a line shows the beginning of one


@dataclass(frozen=True)
class Job:
    """A job that would run, and Snakemake's reasons. hipgpt/pipeline/planned_jobs.py writes these fields."""

    rule: str
    wildcards: Mapping[str, str]
    outputs: Sequence[str]
    missing_outputs: Sequence[str]
    incomplete_outputs: Sequence[str]
    updated_inputs: Sequence[str]
    inputs_of_planned_jobs: Sequence[str]
    params_before: Sequence[str]
    params_now: Sequence[str]
    other_inputs: bool
    other_command: bool
    forced: bool

    @property
    def about(self) -> str:
        return _about(self.wildcards)

    @property
    def position(self) -> int:
        """The position of its rule in the pipeline."""
        return list(STAGES).index(self.rule) if self.rule in STAGES else len(STAGES)


@dataclass(frozen=True)
class Group:
    """Jobs with the same wildcards that would run for the same reasons."""

    rules: list[str]
    wildcards: Mapping[str, str]
    reasons: list[str]


def _about(wildcards: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in wildcards.items())


def explain(planned: Sequence[Job]) -> Iterator[str]:
    """Yield lines about the jobs that would run, as `grouped` orders them; of equal groups of several runs only one."""
    equal: dict[tuple[tuple[str, ...], ...], list[Group]] = {}
    for group in grouped(planned):
        equal.setdefault((tuple(group.wildcards), tuple(group.rules), tuple(group.reasons)), []).append(group)
    for (_, rules, reasons), groups in equal.items():
        about = _about_all([group.wildcards for group in groups])
        yield f"{', '.join(rules)}{f' ({about})' if about else ''}: {reasons[0]}"
        yield from (f"    {reason}" for reason in reasons[1:])


def _about_all(wildcards: Sequence[Mapping[str, str]]) -> str:
    """Return the wildcards of several jobs in words: those that they share, and the values of the others."""
    values = {name: list(dict.fromkeys(one[name] for one in wildcards)) for name in wildcards[0]}
    return ", ".join(
        f"{name} {found[0]}" if len(found) == 1 else f"{len(found)} {name}s: {first_of(MOST_NAMES, found)}"
        for name, found in values.items()
    )


def grouped(planned: Sequence[Job]) -> list[Group]:
    """Return the jobs that would run, in the order of the pipeline. The jobs of a run are grouped by their reasons."""
    jobs = sorted((job for job in planned if job.rule != "all"), key=lambda job: (job.position, job.about))
    groups: dict[str, dict[tuple[str, ...], Group]] = {}
    for job, reasons in zip(jobs, reasons_of(jobs), strict=True):
        group = groups.setdefault(job.about, {}).setdefault(tuple(reasons), Group([], job.wildcards, reasons))
        group.rules.append(job.rule)
    return [group for of_a_run in groups.values() for group in of_a_run.values()]


def reasons_of(jobs: Sequence[Job]) -> list[list[str]]:
    """Return the reasons for each of all jobs that would run."""
    makers = {output: job for job in jobs for output in job.outputs}
    return [list(_causes(job, makers)) or ["Snakemake names no reason"] for job in jobs]


def _causes(job: Job, makers: Mapping[str, Job]) -> Iterator[str]:
    if set(job.missing_outputs) == set(job.outputs):
        yield "not made yet"
        return
    yield from _own_causes(job)
    roots = dict.fromkeys(root.rule for root in sorted(_roots(job, makers), key=lambda root: root.position))
    if roots:
        *others, last = roots
        yield f"because {', '.join(others)}{' and ' if others else ''}{last} would run"


def _roots(job: Job, makers: Mapping[str, Job]) -> Iterator[Job]:
    """Yield the earlier jobs that cause this one to run. Each of them has a cause other than an earlier job."""
    files = (file for file in job.inputs_of_planned_jobs if file in makers)
    for maker in {id(makers[file]): makers[file] for file in files}.values():
        if next(_own_causes(maker), None):
            yield maker
        else:
            yield from _roots(maker, makers)


def _own_causes(job: Job) -> Iterator[str]:
    if job.forced:
        yield "it is forced"
    if job.params_before or job.params_now:
        yield from _changed_params(job)
    elif job.other_inputs:
        yield "it reads other files than before"
    if job.missing_outputs:  # in the order of the rule
        missing = [output for output in job.outputs if output in job.missing_outputs]
        yield f"missing: {first_of(MOST_NAMES, missing)}"
    if job.incomplete_outputs:
        yield f"an interrupted job left {first_of(MOST_NAMES, job.incomplete_outputs)}"
    if job.updated_inputs:
        yield f"changed since: {first_of(MOST_NAMES, job.updated_inputs)}"
    if job.other_command:
        yield "its command in the Snakefile changed"


def _changed_params(job: Job) -> Iterator[str]:
    """Yield "key before -> after" for each change of the recipe, which is the only map among the params."""
    before, after = _recipe(job.params_before), _recipe(job.params_now)
    if before is None or after is None:
        yield "its parameters changed"
        return
    if "source" in after:
        yield from dict.fromkeys(map(_in_words, differences(before, after)))
        return
    # a rule that reads all runs has a recipe for each run
    yield from _runs_are("new", [name for name in after if name not in before])
    yield from _runs_are("gone", [name for name in before if name not in after])
    both = [name for name in before if name in after]
    changes: dict[str, list[str]] = {}
    for name in both:
        for line in dict.fromkeys(map(_in_words, differences(before[name], after[name]))):
            changes.setdefault(line, []).append(name)
    for line, names in changes.items():
        yield line if names == both else f"{line} ({_about_all([{'run': name} for name in names])})"


def _runs_are(change: str, names: Sequence[str]) -> Iterator[str]:
    if names:
        verb = "is" if len(names) == 1 else "are"
        yield f"{_about_all([{'run': name} for name in names])} {verb} {change}"


def _in_words(difference: str) -> str:
    code = re.match(r"(?:\S+\.)?code\.(\w+) ", difference)
    return f"the code of {code[1]} changed" if code else SHA256.sub(r"\1", difference.removeprefix("source."))


def _recipe(params: Sequence[str]) -> Mapping[str, Any] | None:
    """Return the map among the params. Snakemake stores params as Python literals."""
    for text in params:
        try:
            value = ast.literal_eval(text)
        except (SyntaxError, ValueError):
            continue
        if isinstance(value, Mapping):
            return value
    return None
