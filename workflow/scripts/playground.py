"""Write a page that runs a run's best checkpoint in the browser."""

import argparse
import json
from pathlib import Path

import _package  # noqa: F401 (first: it decides which hipgpt is imported)
from _arguments import add_checkpoint, parsed

from hipgpt.base.errors import exit_on_user_error
from hipgpt.data.tokenizer.tokenizer import Tokenizer
from hipgpt.gpt.checkpoint import load_model
from hipgpt.reports.playground import write_playground


@exit_on_user_error
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="the run's name")
    add_checkpoint(parser)
    parser.add_argument("--sampling", required=True, type=json.loads, help="the sampling section, as JSON")
    parser.add_argument("--output", required=True, type=Path, help="playground.html")
    arguments = parsed(parser)
    tokenizer = Tokenizer.load(arguments.tokenizer)
    model, arrays = load_model(arguments.checkpoint, tokenizer.sha256)
    write_playground(arguments.output, arguments.name, model, arrays, tokenizer, arguments.sampling)


if __name__ == "__main__":
    main()
