"""Score predictors without a network on the whole validation split: writes baselines.csv."""

import argparse
from pathlib import Path

import _package  # noqa: F401 (first: it decides which hipgpt is imported)
from _arguments import parsed

from hipgpt.base.errors import exit_on_user_error
from hipgpt.data.tokenizer.tokenizer import Tokenizer
from hipgpt.data.tokens import open_split
from hipgpt.inference.baselines import write_baselines


@exit_on_user_error
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", required=True, type=Path, help="tokenizer.json")
    parser.add_argument("--manifest", required=True, type=Path, help="manifest.json of the token shards")
    parser.add_argument("--output", required=True, type=Path, help="baselines.csv")
    arguments = parsed(parser)
    tokenizer = Tokenizer.load(arguments.tokenizer)
    known = tokenizer.sha256, tokenizer.vocab_size
    train, validation = (open_split(arguments.manifest, split, *known) for split in ("train", "validation"))
    write_baselines(arguments.output, train, validation, tokenizer)


if __name__ == "__main__":
    main()
