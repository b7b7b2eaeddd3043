"""`hipgpt restore` and `hipgpt prune`: bring back, or delete, finished runs that a changed recipe replaced."""

import argparse
import sys

from hipgpt.cli.arguments import Commands, add_command, add_json, add_results, print_json
from hipgpt.pipeline.history import prune, restore
from hipgpt.pipeline.seals import seal


def add(commands: Commands) -> None:
    about = "bring back a finished run that was replaced"
    more = (
        "The present run is kept in exchange. Set the config back to its old values too: otherwise the next snakemake "
        "trains the run again."
    )
    parser = add_command(commands, restore_run, about, more, name="restore")
    parser.add_argument("run", help="its name")
    parser.add_argument(
        "id",
        nargs="?",
        help="its id in the list of `hipgpt runs --history` (default: the latest other run)",
    )
    add_results(parser)
    add_json(parser)
    parser = add_command(commands, prune_runs, "delete finished runs that were replaced", name="prune")
    parser.add_argument("run", nargs="?", help="its name (default: all runs)")
    add_results(parser)
    add_json(parser)


def restore_run(arguments: argparse.Namespace) -> None:
    """Put the files of a kept run back."""
    kept, files, replaced = restore(arguments.results, arguments.run, arguments.id)
    seal(arguments.results, files, changed=True)
    if arguments.json:
        print_json({"run": kept.run, "id": kept.id, "files": len(files), "replaced": replaced and replaced.id})
        return
    sys.stdout.write(f"run {kept.run}: {kept.id} is back, {len(files)} files\n")
    if replaced:
        sys.stdout.write(f"the run that it replaces is kept as {replaced.id}\n")


def prune_runs(arguments: argparse.Namespace) -> None:
    """Delete kept runs and print which."""
    gone = prune(arguments.results, arguments.run)
    if arguments.json:
        print_json([{"run": kept.run, "id": kept.id} for kept in gone])
        return
    sys.stdout.write("".join(f"deleted {kept.folder}\n" for kept in gone) or "no run is kept\n")
