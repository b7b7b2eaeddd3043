"""Options that several commands share."""

import argparse
import re
from pathlib import Path

from hipgpt.config import DEFAULT_RUN, NAME
from hipgpt.errors import UserError

Commands = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_results(parser: argparse.ArgumentParser) -> None:
    """Add --results."""
    parser.add_argument(
        "--results", type=Path, default=Path("results"), help="folder of the runs (default: %(default)s)"
    )


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add --run and --results."""
    parser.add_argument("--run", default=DEFAULT_RUN, help="its name in config.yaml (default: %(default)s)")
    add_results(parser)


def run_folder(results: Path, name: str, having: str) -> Path:
    """Return the folder of a run that has the file `having`. Raises UserError naming those that there are."""
    runs = results / "runs"
    found = sorted(path.name for path in runs.glob("*") if (path / having).exists())
    if not re.fullmatch(NAME, name) or name not in found:
        raise UserError(
            f"--run: no finished run {name!r} in {runs}; found: {', '.join(found) or 'none'}; run snakemake first"
        )
    return runs / name


def finished_run(arguments: argparse.Namespace) -> Path:
    """Return the folder of the run that --run and --results name, exported model included."""
    return run_folder(arguments.results, arguments.run, "model/tokenizer.json")
