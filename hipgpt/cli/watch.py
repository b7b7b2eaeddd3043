"""`hipgpt watch`: draw the curves of runs that train, again and again."""

import argparse
import itertools
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from hipgpt.base.csv_file import read_csv
from hipgpt.base.errors import UserError
from hipgpt.base.files import is_locked
from hipgpt.base.nearest import names_like
from hipgpt.cli.arguments import Commands, add_command, add_results, number
from hipgpt.reports.runs import RERUN, read_record, run_folders

METRICS = {"step": int, "loss_nats_per_token": float}
VALIDATION = {"step": int, "loss_nats_per_token": float}
THROUGHPUT = {"step": int, "tokens_per_second": float}
NO_RUN_YET = "the workflow is at work, and the run has not begun yet"
COMPILING = "compiling kernels"  # in the last line of the log of a training that does it
HOME_AND_CLEAR = "\033[H\033[J"
LEAST_LINES, LEAST_COLUMNS = 12, 40  # of a plot
TICK_COLUMNS = 12  # at least, from one tick of the steps to the next


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        watch,
        "draw the curves of runs that train",
        "It waits for runs that the workflow has not begun yet, and ends when all are finished. If the output is not a "
        "terminal, it draws once.",
    )
    about = "runs to draw (default: those that are not finished, or the only one)"
    parser.add_argument("runs", nargs="*", metavar="RUN", help=about)
    add_results(parser)
    parser.add_argument(
        "--every", type=number, default=2.0, metavar="SECONDS", help="time between two drawings (default: %(default)s)"
    )


def watch(arguments: argparse.Namespace) -> None:
    """Draw until every run is finished."""
    if not arguments.every > 0:
        raise UserError(f"--every: got {arguments.every}, expected a number > 0")
    folders: list[Path] = []
    while True:
        folders = folders or _folders(arguments.results, arguments.runs)
        size = shutil.get_terminal_size()
        plots = "".join(_drawing(folder, size.columns, (size.lines - 2) // len(folders)) for folder in folders)
        sys.stdout.write((HOME_AND_CLEAR if sys.stdout.isatty() else "") + (plots or f"{NO_RUN_YET}\n"))
        sys.stdout.flush()
        if not sys.stdout.isatty() or (folders and all(map(_finished, folders))):
            return
        time.sleep(arguments.every)


def _folders(results: Path, names: list[str]) -> list[Path]:
    """Return the folders of the runs to draw. There may be none yet while a workflow is at work."""
    found, root, at_work = run_folders(results), results / "runs", is_locked(results.absolute().parent / ".snakemake")
    if unknown := [name for name in names if name not in found]:
        if at_work:
            return []
        raise UserError(f"watch: no run {unknown[0]!r} in {root}; found: {names_like(unknown[0], found)}")
    chosen = [found[name] for name in names] or [folder for folder in found.values() if not _finished(folder)]
    if not chosen and not at_work:
        if len(found) == 1:
            return [*found.values()]
        finished = ", ".join(found) or "none"
        raise UserError(f"watch: no run in {root} is training; finished: {finished}; name one of them")
    return chosen


def _finished(folder: Path) -> bool:
    step: int = _last(_rows(folder, "metrics", METRICS), "step", 0)
    return step >= _steps(folder)


def _steps(folder: Path) -> int:
    steps: int = read_record(folder)["config"]["training"]["steps"]
    return steps


def _compiles(folder: Path) -> bool:
    log = folder / "logs" / "train.log"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    return bool(lines) and COMPILING in lines[-1]


def _rows(folder: Path, name: str, kinds: dict[str, Any]) -> list[dict[str, Any]]:
    return read_csv(folder / f"{name}.csv", kinds, RERUN)


def _last(rows: list[dict[str, Any]], column: str, default: Any) -> Any:
    return rows[-1][column] if rows else default


def _ticks(first: int, last: int, most: int) -> list[int]:
    """Return the multiples of a round number, such as 1, 20 or 500, in a range of steps: 1 to `most` of them.

    most: at least 3, so that the next spacing never leaves out all of them.
    """
    spacings = (digit * 10**power for power in itertools.count() for digit in (1, 2, 5))
    spacing = next(spacing for spacing in spacings if last // spacing - (first - 1) // spacing <= most)
    return list(range(-(-first // spacing) * spacing, last + 1, spacing))


def _drawing(folder: Path, columns: int, lines: int) -> str:
    """Return a title and the curves of training and validation loss, in a rectangle of characters."""
    import plotext

    metrics, validation = _rows(folder, "metrics", METRICS), _rows(folder, "validation", VALIDATION)
    speed = _last(_rows(folder, "throughput", THROUGHPUT), "tokens_per_second", None)
    if not metrics:
        return f"{folder.name}: no step of {_steps(folder):,} yet{', compiling kernels' * _compiles(folder)}\n"
    title = f"{folder.name}: step {metrics[-1]['step']:,} of {_steps(folder):,}"
    title += f", loss {metrics[-1]['loss_nats_per_token']:.3f}"
    title += f", validation {validation[-1]['loss_nats_per_token']:.3f}" if validation else ""
    title += f", {speed:,.0f} tokens/s" if speed else ""
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plotsize(max(LEAST_COLUMNS, columns), max(LEAST_LINES, lines - 1))
    curves = (("training", metrics, "braille", "blue"), ("validation", validation, "o", "red"))
    for label, rows, marker, color in curves:
        if rows:
            points = ([row[key] for row in rows] for key in ("step", "loss_nats_per_token"))
            plotext.scatter(*points, label=label, marker=marker, color=color)
    steps = [row["step"] for row in (*metrics, *validation)]
    ticks = _ticks(min(steps), max(steps), max(LEAST_COLUMNS, columns) // TICK_COLUMNS)
    plotext.xticks(ticks, [f"{tick:,}" for tick in ticks])
    plotext.xlabel("step")
    plot = plotext.build() if sys.stdout.isatty() else plotext.uncolorize(plotext.build())
    return f"{title}\n{plot}\n"
