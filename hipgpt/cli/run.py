"""`hipgpt run`: start the workflow of the project in this folder."""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from hipgpt.base.errors import UserError
from hipgpt.base.paths import ROOT
from hipgpt.cli.arguments import Commands, add_command
from hipgpt.config.reading import read_config

CONFIG_OPTIONS = ("--configfile", "--configfiles")


def add(commands: Commands) -> None:
    more = "All other arguments are passed to snakemake: targets, -n, --configfile, --config, --cores (default: all)."
    add_command(commands, run, "start the workflow of the project in this folder", more)


def run(arguments: argparse.Namespace) -> None:
    """Run snakemake with the profile of the project, otherwise with this package's, and exit with its status."""
    if not Path("Snakefile").exists():
        raise UserError("Snakefile: not in this folder; write a project by hipgpt init DIR, then cd DIR")
    check_config_files(arguments.rest)
    options = {"--cores": "all"}
    if not any(Path(folder, "profiles", "default").exists() for folder in (".", "workflow")):  # Snakemake finds these
        options["--workflow-profile"] = str(ROOT / "profiles" / "default")
    given = {option.partition("=")[0] for option in arguments.rest} | {
        "--cores" for o in arguments.rest if o[:2] == "-c"
    }
    defaults = [word for pair in options.items() if pair[0] not in given for word in pair]
    # a group of its own, so that a signal to this process reaches the training too, which then saves its state: a
    # container, a service and `kill` send it to one process, unlike Ctrl-C
    command = [sys.executable, "-m", "snakemake", *defaults, *arguments.rest]
    with subprocess.Popen(command, process_group=0) as process:

        def hand_on(number: int, frame: object) -> None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the last if the terminal is closed
            signal.signal(number, hand_on)
        sys.exit(process.wait())


def check_config_files(words: Sequence[str]) -> None:
    """Raise UserError if a file of --configfile cannot be read: Snakemake would show a traceback, or name no line.

    words: arguments of snakemake.
    """
    taking = False
    for word in words:
        option, _, value = word.partition("=")
        if word.startswith("-"):
            taking = option in CONFIG_OPTIONS
            word = value if taking else ""
        if taking and word and not Path(word).exists():
            raise UserError(f"--configfile: {word}: no such file; write targets before --configfile")
        if taking and word and not word.endswith(".json"):
            read_config(Path(word))
