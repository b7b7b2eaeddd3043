"""Write a run's best checkpoint as a Hugging Face model directory."""

import argparse
from pathlib import Path

import _package  # noqa: F401 (first: it decides which hipgpt is imported)
from _arguments import parsed

from hipgpt.base.errors import exit_on_user_error
from hipgpt.data.tokenizer.tokenizer import Tokenizer
from hipgpt.interchange.huggingface import export_huggingface
from hipgpt.reports.model_card import model_card


@exit_on_user_error
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True, type=Path, help="the run's folder")
    parser.add_argument("--tokenizer", required=True, type=Path, help="tokenizer.json")
    parser.add_argument("--output", required=True, type=Path, help="the directory")
    arguments = parsed(parser)
    tokenizer = Tokenizer.load(arguments.tokenizer)
    export_huggingface(arguments.run, tokenizer, arguments.output, model_card(arguments.run))


if __name__ == "__main__":
    main()
