"""`hipgpt tokenize`: show the tokens of a text."""

import argparse
import os
import sys
from pathlib import Path

from hipgpt.base.terminal import readable
from hipgpt.cli.arguments import Commands, add_command, add_json, add_run, finished_run, print_json


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

    path = arguments.tokenizer or finished_run(arguments) / "model" / "tokenizer.json"
    tokenizer = Tokenizer.load(path)
    text = sys.stdin.buffer.read() if arguments.text is None else os.fsencode(arguments.text)
    ids = tokenizer.encode(text)
    if arguments.json:
        tokens = [{"id": token, "text": readable(tokenizer.token_bytes(token))} for token in ids.tolist()]
        print_json({"tokens": tokens, "bytes": len(text)})
    elif arguments.ids:
        print(*ids.tolist())
    else:
        show_tokens(tokenizer, ids, sys.stdout)
