"""The last words of the workflow on a terminal: the loss next to the baselines, a sample, the commands to type next."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from hipgpt.base.csv_file import read_csv
from hipgpt.base.tables import table
from hipgpt.base.terminal import printable
from hipgpt.config.settings import DEFAULT_RUN
from hipgpt.reports.runs import EVALUATION, RERUN
from hipgpt.reports.samples import samples_of

MOST_LINES, MOST_CHARACTERS = 6, 400  # of a sample


def closing(results: Path, runs: Sequence[str], overlays: Sequence[str] = ()) -> str:
    """Return the text that ends a successful workflow: about the best of the runs that are evaluated, "" if none is.

    overlays: the files that were given by --configfile.
    """
    scores = {run: _bits_per_byte(results / "runs" / run) for run in runs}
    scores = {run: found for run, found in scores.items() if "model" in found}
    if not scores:
        return ""
    best = min(scores, key=lambda run: scores[run]["model"])
    title = f"run {best}" + (f", the best of {len(scores)} runs" if len(scores) > 1 else "")
    rows = [
        {"predictor": name, "bits per byte": score}
        for name, score in sorted(scores[best].items(), key=lambda pair: pair[1])
    ]
    figures = f"{title}, on the whole validation split (fewer bits are better):\n\n{table(rows, 'text')}"
    return "\n".join(["", figures, *_sample(results / "runs" / best), _next(results, best, overlays)])


def _bits_per_byte(folder: Path) -> dict[str, float]:
    rows = read_csv(folder / "evaluation.csv", EVALUATION, RERUN)
    return {row["predictor"]: row["bits_per_byte"] for row in rows if row["bits_per_byte"] is not None}


def _sample(folder: Path) -> list[str]:
    """Return the beginning of the first sample, none if the run has no samples."""
    rows = samples_of(folder)[:1]
    texts = [f"{row['prompt']}{row['continuation'] or ''}" for row in rows]
    lines = [printable(text)[:MOST_CHARACTERS].splitlines()[:MOST_LINES] for text in texts]
    return ["a sample:\n\n" + "".join(f"    {line}\n" for line in text) for text in lines]


def _next(results: Path, run: str, overlays: Sequence[str]) -> str:
    option = "" if run == DEFAULT_RUN else f" --run {shlex.quote(run)}"
    configs = shlex.join(["--configfile", *overlays] if overlays else [])
    folder = results / "runs" / run
    pages = {
        folder / "report.html": "its curves, samples and attention",
        folder / "playground.html": "type a text, and the model continues it",
    }
    commands = {
        f'hipgpt generate "Your words"{option}': "continue a text of yours",
        "hipgpt runs": "show all runs in a table",
        f"snakemake --cores 1 --report {results}/report.html {configs}".rstrip(): "put all runs into one page",
    }
    opened = {str(page): about for page, about in pages.items() if page.exists()}
    shown = [("to open in a browser", opened), ("next", commands)]
    return "\n".join(f"{title}:\n\n{_listed(lines)}" for title, lines in shown if lines)


def _listed(lines: Mapping[str, str]) -> str:
    return "".join(f"    {name}  # {about}\n" for name, about in lines.items())
