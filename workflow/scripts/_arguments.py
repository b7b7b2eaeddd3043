"""Options that several scripts have, and the one that every script has: --log."""

import argparse
import logging
import signal
import sys
from pathlib import Path

from hipgpt.base.log import LOG, start_log


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", required=True, type=Path, help="best.safetensors of a run")
    parser.add_argument("--tokenizer", required=True, type=Path, help="tokenizer.json")


def add_corpus(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--corpus", required=True, type=Path, help="folder that download.py wrote")
    parser.add_argument("--tokenizer", required=True, type=Path, help="tokenizer.json")
    parser.add_argument("--train-shards", type=int, default=1, help="files to divide the training text into")


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="cpu, cuda, hip, or auto for the best one present")
    parser.add_argument("--threads", type=int, help="threads of the CPU kernels (default: all cores)")


def parsed(parser: argparse.ArgumentParser, rank: int = 0) -> argparse.Namespace:
    """Return the arguments of a script, and begin its log.

    The log of a stage is <folder>/logs/<stage>.log. Messages on stderr name that folder: the run, or the corpus.
    rank: of this process among several that do the same; all but the first only show what is wrong.
    """
    parser.add_argument("--log", type=Path, help="file that gets a copy of all messages (default: none)")
    arguments = parser.parse_args()
    subject = arguments.log.resolve().parents[1].name if arguments.log else ""
    if rank == 0:
        # an exception, as Ctrl-C is one, so that temporary files are removed; the other ranks leave signals to rank 0
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        start_log(arguments.log, subject)
    else:
        start_log(None, f"{subject} rank {rank}".strip())
        LOG.setLevel(logging.WARNING)
    return arguments
