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
MOST_RUNS = 5
SWEEP_FILES = {"seeds.csv": "each setting, with means over seeds", "settings.png": "loss by setting"}
RUN_PAGES = {
    "report.html": "its curves, samples and attention",
    "playground.html": "type a text, and the model continues it",
}


def closing(results: Path, runs: Sequence[str], overlays: Sequence[str] = (), sweeps: Sequence[str] = ()) -> str:
    """Return the text that ends a successful workflow, "" if no run is evaluated.

    It is about one run, or about the best of several. overlays: the files that were given by --configfile; sweeps: the
    names of those that are compared.
    """
    scores = {run: _bits_per_byte(results / "runs" / run) for run in runs}
    scores = {run: found for run, found in scores.items() if "model" in found}
    if not scores:
        return ""
    ranked = sorted(scores, key=lambda run: scores[run]["model"])
    if len(ranked) == 1:
        return _about_run(results, ranked[0], scores[ranked[0]], overlays)
    shown = ranked[:MOST_RUNS]
    title = f"the best {len(shown)} of {len(ranked)} runs" if len(shown) < len(ranked) else f"{len(ranked)} runs"
    return "\n".join([
        "",
        _figures(title, "run", {run: scores[run]["model"] for run in shown}),
        *_sections({
            "sweeps": {
                results / "sweeps" / sweep / name: about for sweep in sweeps for name, about in SWEEP_FILES.items()
            },
            "to open in a browser": {results / "summary.html": "all runs: overlay curves, sort, filter"},
        }),
        _next(results, ranked[0], overlays),
    ])  # fmt: skip


def _about_run(results: Path, run: str, scores: Mapping[str, float], overlays: Sequence[str]) -> str:
    folder = results / "runs" / run
    pages = {folder / name: about for name, about in RUN_PAGES.items()}
    return "\n".join([
        "",
        _figures(f"run {run}", "predictor", scores),
        *_sample(folder),
        *_sections({"to open in a browser": pages}),
        _next(results, run, overlays),
    ])  # fmt: skip


def _figures(title: str, heading: str, scores: Mapping[str, float]) -> str:
    best_first = sorted(scores.items(), key=lambda pair: pair[1])
    rows = [{heading: name, "bits per byte": f"{score:.4f}"} for name, score in best_first]
    return f"{title}, on the whole validation split (fewer bits are better):\n\n{table(rows, 'text')}"


def _bits_per_byte(folder: Path) -> dict[str, float]:
    rows = read_csv(folder / "evaluation.csv", EVALUATION, RERUN)
    return {row["predictor"]: row["bits_per_byte"] for row in rows if row["bits_per_byte"] is not None}


def _sample(folder: Path) -> list[str]:
    """Return the beginning of the first sample, none if the run has no samples."""
    rows = samples_of(folder)[:1]
    texts = [f"{row['prompt']}{row['continuation'] or ''}" for row in rows]
    lines = [printable(text)[:MOST_CHARACTERS].splitlines()[:MOST_LINES] for text in texts]
    return ["a sample:\n\n" + "".join(f"    {line}\n" for line in text) for text in lines]


def _sections(files: Mapping[str, Mapping[Path, str]]) -> list[str]:
    """Return a list for each title, of the files that exist."""
    made = {
        title: {str(file): about for file, about in found.items() if file.exists()} for title, found in files.items()
    }
    return [f"{title}:\n\n{_listed(lines)}" for title, lines in made.items() if lines]


def _next(results: Path, run: str, overlays: Sequence[str]) -> str:
    option = "" if run == DEFAULT_RUN else f" --run {shlex.quote(run)}"
    configs = shlex.join(["--configfile", *overlays] if overlays else [])
    commands = {
        f'hipgpt generate "Your words"{option}': "continue a text of yours",
        "hipgpt runs": "show all runs in a table",
        f"snakemake --cores 1 --report {results}/report.html {configs}".rstrip(): "put all runs into one page",
    }
    return f"next:\n\n{_listed(commands)}"


def _listed(lines: Mapping[str, str]) -> str:
    return "".join(f"    {name}  # {about}\n" for name, about in lines.items())
