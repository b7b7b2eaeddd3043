"""The parser of all commands, and options that several of them share."""

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from hipgpt.base.errors import UserError
from hipgpt.base.nearest import did_you_mean, names_like
from hipgpt.base.terminal import one_line
from hipgpt.config.settings import DEFAULT_RUN, NAME

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"
MOST_CHARACTERS = 400  # of a message about the command line


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, in the form of all others, with a hint. The exit status is 2, as usual."""

    def error(self, message: str) -> NoReturn:
        shown = one_line(message.removeprefix("argument "), MOST_CHARACTERS)
        self.exit(2, f"error: {shown}; {self.prog} --help shows the {'options' if ' ' in self.prog else 'commands'}\n")

    def refuse(self, rest: Sequence[str]) -> NoReturn:
        """Exit because of words that the command does not take."""
        word = rest[0].partition("=")[0]
        if word.startswith("-"):
            self.error(f"{word}: no such option{did_you_mean(word, self._option_string_actions)}")
        self.error(f"got {rest[0]!r}, expected no further argument")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        if isinstance(action, argparse._SubParsersAction):
            raise argparse.ArgumentError(None, f"no command {value!r}{did_you_mean(value, action.choices)}")
        raise argparse.ArgumentError(action, f"got {value!r}, expected {' or '.join(map(str, action.choices))}")


def add_command(
    commands: Commands,
    command: Callable[[argparse.Namespace], None],
    about: str,
    more: str | None = None,
    name: str | None = None,
) -> Parser:
    """Return the parser of a new command. name: by default that of its function.

    about: one line for the list of commands; more: text for the end of its --help.
    """
    description = f"{about[0].upper()}{about[1:]}."
    parser = commands.add_parser(name or command.__name__, help=about, description=description, epilog=more)
    parser.set_defaults(command=command, parser=parser)
    return parser


def add_results(parser: argparse.ArgumentParser) -> None:
    """Add --results."""
    parser.add_argument(
        "--results", type=Path, default=Path("results"), metavar="DIR", help="folder of the runs (default: %(default)s)"
    )


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add --run and --results."""
    parser.add_argument("--run", metavar="NAME", help=f"name of a run (default: {DEFAULT_RUN}, or the only one)")
    add_results(parser)


def add_configfile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--configfile",
        type=Path,
        nargs="+",
        default=[],
        help="files that override config.yaml, as in snakemake (default: none)",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json."""
    parser.add_argument("--json", action="store_true", help="print one JSON document instead")


def print_json(document: Any) -> None:
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


def integer(text: str) -> int:
    """Return the value of an option. Raises ArgumentTypeError if it is not an integer."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected an integer") from None


def number(text: str) -> float:
    """Return the value of an option. Raises ArgumentTypeError if it is not a number."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a number") from None


def run_name(arguments: argparse.Namespace) -> str:
    """Return the value of --run. Without one: the only run that there is, otherwise `default`."""
    if arguments.run is not None:
        return str(arguments.run)
    found = [path.parent.name for path in arguments.results.glob("runs/*/run.json")]
    return found[0] if len(found) == 1 else DEFAULT_RUN


def run_folder(results: Path, name: str, having: str, wanted: str = "run") -> Path:
    """Return the folder of a run, which must contain the file `having`. Otherwise raises UserError naming such runs."""
    runs = results / "runs"
    found = sorted(path.name for path in runs.glob("*") if (path / having).exists())
    if not re.fullmatch(NAME, name) or name not in found:
        remedy = "name one of them, or run snakemake first" if found else "run snakemake first"
        raise UserError(f"no {wanted} {name!r} in {runs}; found: {names_like(name, found)}; {remedy}")
    return runs / name


def finished_run(arguments: argparse.Namespace, having: str = "checkpoints/best.safetensors") -> Path:
    """Return the folder of the run that --run and --results name. It must contain the file `having`."""
    return run_folder(arguments.results, run_name(arguments), having, "finished run")
