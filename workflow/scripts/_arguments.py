"""The option that every script has: --log."""

import argparse
from pathlib import Path

from hipgpt.base.log import start_log


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Return the arguments of a script, and begin its log.

    The log of a stage is <folder>/logs/<stage>.log. Messages on stderr name that folder: the run, or the corpus.
    """
    parser.add_argument("--log", type=Path, help="file that gets a copy of all messages (default: none)")
    arguments = parser.parse_args()
    start_log(arguments.log, arguments.log.resolve().parents[1].name if arguments.log else "")
    return arguments
