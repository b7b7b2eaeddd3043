"""Options that several commands share."""

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from hipgpt.base.errors import UserError
from hipgpt.config.settings import DEFAULT_RUN, NAME

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_command(
    commands: Commands,
    command: Callable[[argparse.Namespace], None],
    about: str,
    more: str | None = None,
    name: str | None = None,
) -> argparse.ArgumentParser:
    """Return the parser of a new command. name: by default that of its function.

    about: one line for the list of commands; more: text for the end of its --help.
    """
    description = f"{about[0].upper()}{about[1:]}."
    parser = commands.add_parser(name or command.__name__, help=about, description=description, epilog=more)
    parser.set_defaults(command=command)
    return parser


def add_results(parser: argparse.ArgumentParser) -> None:
    """Add --results."""
    parser.add_argument(
        "--results", type=Path, default=Path("results"), metavar="DIR", help="folder of the runs (default: %(default)s)"
    )


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add --run and --results."""
    parser.add_argument("--run", default=DEFAULT_RUN, metavar="NAME", help="a run of the config (default: %(default)s)")
    add_results(parser)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json."""
    parser.add_argument("--json", action="store_true", help="print one JSON document instead")


def print_json(document: Any) -> None:
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


def run_folder(results: Path, name: str, having: str) -> Path:
    """Return the folder of a run, which must contain the file `having`. Otherwise raises UserError naming such runs."""
    runs = results / "runs"
    found = sorted(path.name for path in runs.glob("*") if (path / having).exists())
    if not re.fullmatch(NAME, name) or name not in found:
        raise UserError(
            f"--run: no finished run {name!r} in {runs}; found: {', '.join(found) or 'none'}; run snakemake first"
        )
    return runs / name


def finished_run(arguments: argparse.Namespace) -> Path:
    """Return the folder of the run that --run and --results name. Its model must be exported."""
    return run_folder(arguments.results, arguments.run, "model/tokenizer.json")
