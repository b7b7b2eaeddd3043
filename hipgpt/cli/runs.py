"""`hipgpt runs`: show all runs in one table, sorted and filtered."""

import argparse
import fnmatch
import operator
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hipgpt.base.errors import UserError
from hipgpt.base.nested import leaves
from hipgpt.base.tables import FORMATS, fitting, table
from hipgpt.cli.arguments import Commands, add_command, add_results
from hipgpt.cli.columns import FIGURES, ORIGINS, WHOLE, column_named, setting_headings
from hipgpt.pipeline.history import kept_runs
from hipgpt.reports.runs import Row, read_record, run_folders, run_row

COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "!=": operator.ne,
    "=": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}
CONDITION = re.compile(r"([^<>=!]+)(<=|>=|!=|=|<|>)(.*)")


def add(commands: Commands) -> None:
    parser = add_command(commands, runs, "show all runs in a table")
    add_results(parser)
    parser.add_argument("--sort", default="run", metavar="COLUMN", help="column to sort by (default: %(default)s)")
    parser.add_argument("--descending", action="store_true", help="largest first")
    parser.add_argument(
        "--filter", action="append", default=[], metavar="CONDITION",
        help="show runs that meet it: parameters>1e6, run=wide*, learning_rate_peak>0.002; COLUMN is a heading of the "
        "table, a column of --csv, or the last part of its name; may be repeated (default: all runs)",
    )  # fmt: skip
    parser.add_argument("--history", action="store_true", help="show finished runs that were replaced and are kept")
    forms = parser.add_mutually_exclusive_group()
    for form in FORMATS[1:]:
        forms.add_argument(f"--{form}", dest="form", action="store_const", const=form, help=f"print as {form}")
    parser.set_defaults(form="text")


def runs(arguments: argparse.Namespace) -> None:
    """Print the table of runs."""
    rows = _with_settings(_kept_folders(arguments.results) if arguments.history else run_folders(arguments.results))
    if not rows and arguments.history:
        raise UserError(f"--history: no replaced run is kept in {arguments.results}")
    if not rows:
        raise UserError(f"no runs in {arguments.results / 'runs'}; run snakemake first")
    conditions = [_condition(text, rows) for text in arguments.filter]
    column = column_named(arguments.sort, rows, "--sort")
    chosen = _sorted([row for row in rows if all(holds(row) for holds in conditions)], column, arguments.descending)
    if arguments.form == "text":
        sys.stdout.write(_for_people(chosen, setting_headings(rows)) if chosen else "no run meets every --filter\n")
        return
    columns = list(rows[0])
    if arguments.form == "md":  # for people too
        columns = [name for name in columns if "." not in name or name in setting_headings(rows)]
    chosen = [{name: row[name] for name in columns} for row in chosen]
    sys.stdout.write(table(chosen, arguments.form, columns))


def _sorted(rows: list[Row], column: str, descending: bool) -> list[Row]:
    """Return rows in the order of a column: numbers, then texts. Rows without a value are last."""
    known, unknown = ([row for row in rows if (row[column] is None) is absent] for absent in (False, True))

    def key(row: Row) -> Any:
        value = row[column]
        return (0, value) if isinstance(value, (int, float)) else (1, str(value))

    return sorted(known, key=key, reverse=descending) + unknown


def _kept_folders(results: Path) -> dict[str, Path]:
    return {f"{one.run} {one.id}": one.folder / "files" for one in kept_runs(results)}


def _with_settings(folders: Mapping[str, Path]) -> list[Row]:
    """Return the rows of runs, each with the settings of its config as columns named by dotted keys."""
    settings = {name: dict(leaves(read_record(folder)["config"])) for name, folder in folders.items()}
    keys = sorted({key for found in settings.values() for key in found if "." in key})
    return [
        {**run_row(folder), "run": name, **{key: settings[name].get(key) for key in keys}}
        for name, folder in folders.items()
    ]


def _for_people(rows: list[Row], settings: Mapping[str, str]) -> str:
    common = {title: rows[0][name] for name, title in ORIGINS.items() if len({row[name] for row in rows}) == 1}
    shared = {key for key in settings if len({repr(row[key]) for row in rows}) == 1}  # by the runs that are shown
    common |= {settings[key]: rows[0][key] for key in shared}
    titles = {"run": "run"} | {key: title for key, title in settings.items() if key not in shared}
    titles |= FIGURES | {name: title for name, title in ORIGINS.items() if title not in common}
    shown = [
        {title: _progress(row) if name == "steps" else row[name] for name, title in titles.items()} for row in rows
    ]
    columns = fitting(shown, WHOLE)
    text = table([{title: row[title] for title in columns} for row in shown], "text", whole=True)
    if more := len(titles) - len(columns):
        text += f"{more} more column{'s' * (more > 1)}: --csv\n"
    below = table([{"in all runs": title, "": value} for title, value in common.items()], "text")
    return f"{text}\n{below}" if common else text


def _progress(row: Row) -> Any:
    """Return the steps so far, with those of the config if the run is not finished."""
    steps, planned = row["steps"], row.get("training.steps")
    unfinished = isinstance(steps, int) and isinstance(planned, int) and steps < planned
    return f"{steps:,} of {planned:,}" if unfinished else steps


def _condition(text: str, rows: Sequence[Row]) -> Callable[[Row], bool]:
    match = CONDITION.fullmatch(text)
    if match is None:
        raise UserError(f"--filter: got {text!r}, expected COLUMN, one of {' '.join(COMPARISONS)}, and a value")
    name, sign, target = (part.strip() for part in match.groups())
    column = column_named(name, rows, "--filter")

    def holds(row: Row) -> bool:
        value = row[column]
        if value is None:
            return False
        if isinstance(value, bool):
            value = str(value).lower()  # as in the config
        if not isinstance(value, (int, float)):
            if sign not in ("=", "!="):
                raise UserError(
                    f"--filter: {column} is text, which {sign} does not compare; use = or !=, * for any text"
                )
            return fnmatch.fnmatchcase(str(value), target) is (sign == "=")
        try:
            return COMPARISONS[sign](value, float(target))
        except ValueError:
            raise UserError(f"--filter: {column}: got {target!r}, expected a number") from None

    return holds
