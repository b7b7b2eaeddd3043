"""`hipgpt tokenize`: show the tokens of a text."""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from hipgpt.base.errors import UserError
from hipgpt.base.json_files import read_json
from hipgpt.base.terminal import readable
from hipgpt.cli.arguments import Commands, add_command, add_json, add_run, print_json, run_name
from hipgpt.config.settings import NAME
from hipgpt.reports.runs import RETRAIN


def add(commands: Commands) -> None:
    parser = add_command(commands, tokenize, "show the tokens of a text")
    parser.add_argument("text", nargs="?", help="the text (default: standard input)")
    add_run(parser)
    parser.add_argument("--tokenizer", type=Path, help="a tokenizer.json or .tiktoken to use instead of that of a run")
    parser.add_argument("--ids", action="store_true", help="print only the ids, for other programs")
    add_json(parser)


def tokenize(arguments: argparse.Namespace) -> None:
    """Print the tokens of a text; on a terminal they are coloured, and their number is added."""
    from hipgpt.cli.show_tokens import show_tokens
    from hipgpt.data.tokenizer.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(arguments.tokenizer or _tokenizer_of(arguments.results, run_name(arguments)))
    text = sys.stdin.buffer.read() if arguments.text is None else os.fsencode(arguments.text)
    ids = tokenizer.encode(text)
    if arguments.json:
        tokens = [{"id": token, "text": readable(tokenizer.token_bytes(token))} for token in ids.tolist()]
        print_json({"tokens": tokens, "bytes": len(text)})
    elif arguments.ids:
        print(*ids.tolist())
    else:
        show_tokens(tokenizer, ids, sys.stdout)


def _tokenizer_of(results: Path, name: str) -> Path:
    """Return the tokenizer of a run, which is complete long before the run is. Raises UserError if it is absent."""
    from hipgpt.cli.info import load

    runs, folder = results / "runs", results / "runs" / name
    found = sorted(results.glob("corpora/*/*/tokenizer.json"))
    remedy = f"name one by --tokenizer; found: {', '.join(map(str, found)) or 'none'}"
    if not re.fullmatch(NAME, name):
        raise UserError(f"no run {name!r} in {runs}; {remedy}")
    if (folder / "model" / "tokenizer.json").exists():
        return folder / "model" / "tokenizer.json"
    if (folder / "run.json").exists() and (path := _trained_with(folder / "run.json", found)):
        return path
    run = load([]).runs.get(name)
    if run is None:
        raise UserError(f"no run {name!r} in {runs} or the config; {remedy}")
    path = results / "corpora" / run.corpus / run.tokenizer / "tokenizer.json"
    if not path.exists():
        raise UserError(f"{path}: missing, because run {name!r} has no tokenizer yet; run snakemake, or {remedy}")
    return path


def _trained_with(record: Path, found: Sequence[Path]) -> Path | None:
    """Return the tokenizer that the run.json of a run in progress names by its hash."""
    from hipgpt.data.tokenizer.tokenizer import Tokenizer

    sha256 = read_json(record, {"tokenizer_sha256": str}, RETRAIN)["tokenizer_sha256"]
    return next((path for path in found if Tokenizer.load(path).sha256 == sha256), None)
