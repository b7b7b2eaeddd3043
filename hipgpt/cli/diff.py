"""`hipgpt diff A B`: the config keys, inputs and metrics in which two runs differ."""

import argparse
import re
import sys
from typing import Any

from hipgpt.base.tables import table
from hipgpt.cli.arguments import Commands, add_command, add_json, add_results, print_json, run_folder
from hipgpt.reports.runs import HASH_DIGITS, differing


def add(commands: Commands) -> None:
    parser = add_command(commands, diff, "show what differs between two runs: config, inputs, metrics")
    parser.add_argument("first", metavar="A", help="name of a run")
    parser.add_argument("second", metavar="B", help="name of another run")
    add_results(parser)
    add_json(parser)


def diff(arguments: argparse.Namespace) -> None:
    """Print a line for each difference."""
    folders = [run_folder(arguments.results, name, "run.json") for name in (arguments.first, arguments.second)]
    found = differing(*folders)
    if arguments.json:
        print_json(found)
        return
    rows = [
        {**{title: _short(value) for title, value in row.items()}, "change": _per_cent(row["change"])} for row in found
    ]
    sys.stdout.write(table(rows, "text") if rows else f"{arguments.first} and {arguments.second} do not differ\n")


def _per_cent(change: Any) -> str | None:
    return None if change is None else f"{change:+.2f}%"


def _short(value: Any) -> Any:
    """Return the first digits of a hash, as in the table of runs. Return any other value unchanged."""
    return value[:HASH_DIGITS] if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{16,64}\+?", value) else value
