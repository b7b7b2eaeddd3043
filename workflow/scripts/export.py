"""Write a run's best checkpoint as a Hugging Face model directory."""

import argparse
import json
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
    facts = "license, language, datasets and pretrained for the model card, as JSON; each may be absent"
    parser.add_argument("--card", default={}, type=json.loads, help=facts)
    parser.add_argument("--output", required=True, type=Path, help="the directory")
    arguments = parsed(parser)
    tokenizer = Tokenizer.load(arguments.tokenizer)
    card = model_card(arguments.run, arguments.card)
    export_huggingface(arguments.run, tokenizer, arguments.output, card)


if __name__ == "__main__":
    main()
