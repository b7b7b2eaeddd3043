"""Write a run's best checkpoint as a Hugging Face model directory."""

import argparse
from pathlib import Path

from hipgpt.errors import exit_on_user_error
from hipgpt.export.huggingface import export_huggingface
from hipgpt.tokenizer import Tokenizer


@exit_on_user_error
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True, type=Path, help="the run's folder")
    parser.add_argument("--tokenizer", required=True, type=Path, help="tokenizer.json")
    parser.add_argument("--output", required=True, type=Path, help="the directory")
    arguments = parser.parse_args()
    export_huggingface(arguments.run, Tokenizer.load(arguments.tokenizer), arguments.output)


if __name__ == "__main__":
    main()
