"""`hipgpt run`: start the workflow of the project in this folder."""

import argparse
import subprocess
import sys
from pathlib import Path

from hipgpt.base.errors import UserError
from hipgpt.base.paths import ROOT
from hipgpt.cli.arguments import Commands, add_command


def add(commands: Commands) -> None:
    more = "All other arguments are passed to snakemake: targets, -n, --configfile, --config, --cores (default: all)."
    add_command(commands, run, "start the workflow of the project in this folder", more)


def run(arguments: argparse.Namespace) -> None:
    """Run snakemake with this package's profile, and exit with its status."""
    if not Path("Snakefile").exists():
        raise UserError("Snakefile: not in this folder; write a project by hipgpt init DIR, then cd DIR")
    options = {"--workflow-profile": str(ROOT / "profiles" / "default"), "--cores": "all"}
    given = {option.partition("=")[0] for option in arguments.rest} | {
        "--cores" for o in arguments.rest if o[:2] == "-c"
    }
    defaults = [word for pair in options.items() if pair[0] not in given for word in pair]
    # Ctrl-C reaches snakemake too, which saves the training; this process only waits for it
    with subprocess.Popen([sys.executable, "-m", "snakemake", *defaults, *arguments.rest]) as process:
        while True:
            try:
                sys.exit(process.wait())
            except KeyboardInterrupt:
                continue
