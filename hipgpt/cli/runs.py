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
from hipgpt.base.tables import FORMATS, table
from hipgpt.cli.arguments import Commands, add_command, add_results
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
CONDITION = re.compile(r"([\w.]+)(<=|>=|!=|=|<|>)(.*)")
# The table for people has fewer columns than the other formats. Values that all runs share are printed once, below it.
FIGURES = {
    "run": "run",
    "parameters": "parameters",
    "tokens_seen": "tokens",
    "validation_bits_per_byte": "bits/byte",
    "median_tokens_per_second": "tokens/s",
}
ORIGINS = {"device": "device", "code_sha256": "code", "corpus": "corpus", "corpus_sha256": "corpus sha256"}


def add(commands: Commands) -> None:
    parser = add_command(commands, runs, "show all runs in a table")
    add_results(parser)
    parser.add_argument("--sort", default="run", metavar="COLUMN", help="column to sort by (default: %(default)s)")
    parser.add_argument("--descending", action="store_true", help="largest first")
    parser.add_argument(
        "--filter", action="append", default=[], metavar="CONDITION",
        help="show runs that meet it: parameters>1e6, run=wide*, training.learning_rate_peak>0.002; may be repeated "
        "(default: all runs)",
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
        raise UserError(f"--results: no runs in {arguments.results / 'runs'}; run snakemake first")
    conditions = [_condition(text, rows[0]) for text in arguments.filter]
    rows = [row for row in rows if all(condition(row) for condition in conditions)]
    column = _known(arguments.sort, rows[0] if rows else None, "--sort")
    known, unknown = ([row for row in rows if (row[column] is None) is absent] for absent in (False, True))

    def value(row: Row) -> Any:  # text in all rows, or numbers in all rows
        return row[column]

    rows = sorted(known, key=value, reverse=arguments.descending) + unknown
    swept = [name for name in rows[0] if "." in name and len({repr(row[name]) for row in rows}) > 1] if rows else []
    rows = [{name: value for name, value in row.items() if "." not in name or name in swept} for row in rows]
    sys.stdout.write(_for_people(rows, swept) if arguments.form == "text" else table(rows, arguments.form))


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


def _for_people(rows: list[Row], swept: Sequence[str]) -> str:
    if not rows:
        return "no run meets every --filter\n"
    common = {title: rows[0][name] for name, title in ORIGINS.items() if len({row[name] for row in rows}) == 1}
    titles = {"run": "run"} | {key: key.split(".")[-1] for key in swept}
    titles |= FIGURES | {name: title for name, title in ORIGINS.items() if title not in common}
    text = table([{title: row[name] for name, title in titles.items()} for row in rows], "text")
    below = table([{"in all runs": title, "": value} for title, value in common.items()], "text")
    return f"{text}\n{below}" if common else text


def _known(column: str, row: Row | None, option: str) -> str:
    if row is not None and column not in row:
        raise UserError(f"{option}: no column {column!r}; columns are {', '.join(row)}")
    return column


def _condition(text: str, row: Row) -> Callable[[Row], bool]:
    match = CONDITION.fullmatch(text)
    if match is None:
        raise UserError(f"--filter: got {text!r}, expected COLUMN, one of {' '.join(COMPARISONS)}, and a value")
    column, sign, target = match.groups()
    _known(column, row, "--filter")

    def holds(row: Row) -> bool:
        value = row[column]
        if value is None:
            return False
        if isinstance(value, str):
            if sign not in ("=", "!="):
                raise UserError(
                    f"--filter: {column} is text, which {sign} does not compare; use = or !=, * for any text"
                )
            return fnmatch.fnmatchcase(value, target) is (sign == "=")
        try:
            return COMPARISONS[sign](value, float(target))
        except ValueError:
            raise UserError(f"--filter: {column}: got {target!r}, expected a number") from None

    return holds
