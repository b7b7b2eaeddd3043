"""`hipgpt diff A B`: the config keys, inputs and metrics in which two runs differ."""

import argparse
import sys

from hipgpt.commands.arguments import Commands, add_command, add_results, run_folder
from hipgpt.runs import differing
from hipgpt.tables import table


def add(commands: Commands) -> None:
    parser = add_command(commands, diff, "show what differs between two runs: config, inputs, metrics")
    parser.add_argument("first", metavar="A", help="name of a run")
    parser.add_argument("second", metavar="B", help="name of another run")
    add_results(parser)


def diff(arguments: argparse.Namespace) -> None:
    """Print a line for each difference."""
    folders = [run_folder(arguments.results, name, "run.json") for name in (arguments.first, arguments.second)]
    rows = differing(*folders)
    sys.stdout.write(table(rows, "text") if rows else f"{arguments.first} and {arguments.second} do not differ\n")
