"""`hipgpt prune`: delete finished runs that a changed recipe replaced."""

import argparse
import sys

from hipgpt.base.errors import UserError
from hipgpt.cli.arguments import Commands, add_command, add_configfile, add_json, add_results, print_json
from hipgpt.cli.kept import described, in_words, size
from hipgpt.pipeline.history import delete, kept_runs


def add(commands: Commands) -> None:
    parser = add_command(commands, prune, "delete finished runs that were replaced")
    parser.add_argument("run", nargs="?", help="its name (default: all runs)")
    add_configfile(parser)
    add_results(parser)
    parser.add_argument("--yes", action="store_true", help="delete without a question")
    parser.add_argument("-n", "--dry-run", action="store_true", help="show what would be deleted")
    add_json(parser)


def prune(arguments: argparse.Namespace) -> None:
    """Show the kept runs, ask, and delete them."""
    kept = [one for one in kept_runs(arguments.results) if arguments.run in (None, one.run)]
    found = described(kept, arguments.configfile)
    if not arguments.json:
        sys.stdout.write("".join(f"{in_words(one)}\n" for one in found) or "no run is kept\n")
    extent = f"{len(kept)} run{'s' * (len(kept) != 1)}, {size(sum(one['bytes'] for one in found))}"
    if kept and not arguments.dry_run:
        if not arguments.yes and not _agreed(extent, arguments.json):
            sys.stdout.write("nothing was deleted\n")
            return
        for one in kept:
            delete(one)
        if not arguments.json:
            sys.stdout.write(f"deleted {extent}\n")
    if arguments.json:
        print_json(found)


def _agreed(extent: str, as_json: bool) -> bool:
    """Ask on the terminal. Raises UserError if nobody can answer."""
    if as_json or sys.stdin is None or not (sys.stdin.isatty() and sys.stdout.isatty()):
        sys.stdout.flush()
        raise UserError(f"prune: would delete {extent}, and there is no terminal to ask on; add --yes, or --dry-run")
    try:
        return input(f"delete {extent}? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:  # Ctrl-D
        sys.stdout.write("\n")
        return False
