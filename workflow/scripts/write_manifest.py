"""List the token shards of a corpus with their sizes and hashes: writes manifest.json into their folder."""

import argparse
from pathlib import Path

import _package  # noqa: F401 (first: it decides which hipgpt is imported)
from _arguments import add_corpus, parsed

from hipgpt.base.errors import exit_on_user_error
from hipgpt.data.shards import write_manifest
from hipgpt.data.tokenizer.tokenizer import Tokenizer


@exit_on_user_error
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_corpus(parser)
    parser.add_argument("--output", required=True, type=Path, help="folder with the shards")
    arguments = parsed(parser)
    tokenizer = Tokenizer.load(arguments.tokenizer)
    write_manifest(arguments.corpus, tokenizer, arguments.output, arguments.train_shards)


if __name__ == "__main__":
    main()
