"""`hipgpt restore`: bring back a finished run that a changed recipe replaced."""

import argparse
import sys

from hipgpt.base.errors import UserError
from hipgpt.cli.arguments import Commands, add_command, add_configfile, add_json, add_results, print_json
from hipgpt.cli.info import load
from hipgpt.cli.kept import as_config, described, in_words
from hipgpt.pipeline.history import other_runs, restore
from hipgpt.pipeline.seals import seal


def add(commands: Commands) -> None:
    about = "bring back a finished run that was replaced"
    more = (
        "The present run is kept in exchange. Write the settings that it shows into the config too: otherwise the next "
        "snakemake trains the run again."
    )
    parser = add_command(commands, restore_run, about, more, name="restore")
    parser.add_argument("run", help="its name")
    parser.add_argument(
        "id",
        nargs="?",
        help="its id in the list of `hipgpt runs --history` (default: the only other one)",
    )
    add_configfile(parser)
    add_results(parser)
    add_json(parser)


def restore_run(arguments: argparse.Namespace) -> None:
    """Put the files of a kept run back, and print how the config differs."""
    kept, *others = other_runs(arguments.results, arguments.run, arguments.id)
    if others:
        lines = "\n".join(in_words(one) for one in described([kept, *others], arguments.configfile))
        wanted = f"name the id of one of them: hipgpt restore {arguments.run} ID"
        raise UserError(f"restore: {len(others) + 1} runs {arguments.run} are kept; {wanted}", lines)
    (found,) = described([kept], arguments.configfile)
    files, replaced = restore(arguments.results, kept)
    seal(arguments.results, files, changed=True)
    if arguments.json:
        known = {key: found[key] for key in ("settings", "bits_per_byte")}
        print_json({"run": kept.run, "id": kept.id, "files": len(files), "replaced": replaced and replaced.id, **known})
        return
    sys.stdout.write(f"restored {in_words(found)}, {len(files)} files\n")
    if replaced:
        sys.stdout.write(f"the run that it replaces is kept as {replaced.id}\n")
    if found["settings"]:
        settings = as_config(found, load(arguments.configfile).name)
        sys.stdout.write(f"\nthe config differs; so that snakemake keeps this run, write:\n\n{settings}")
