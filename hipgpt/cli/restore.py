"""`hipgpt restore`: bring back a finished run that a changed recipe replaced."""

import argparse
import sys

from hipgpt.cli.arguments import Commands, add_command, add_json, add_results, print_json
from hipgpt.pipeline.history import restore
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
