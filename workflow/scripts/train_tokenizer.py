"""Train a byte-level BPE tokenizer on the training split of a corpus, or take over an existing one.

Writes tokenizer.json, merges.csv and compression.csv.
"""

import argparse
import json
from pathlib import Path

import _package  # noqa: F401 (first: it decides which hipgpt is imported)
from _arguments import parsed

from hipgpt.base.errors import exit_on_user_error
from hipgpt.data.tokenizer.stage import make_tokenizer


@exit_on_user_error
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", required=True, type=Path, help="train.txt of a corpus")
    parser.add_argument(
        "--settings", required=True, type=json.loads, help='the tokenizer section, as JSON: {"vocab_size": 5000}'
    )
    parser.add_argument("--output", required=True, type=Path, help="folder for the files")
    parser.add_argument(
        "--threads", type=int, default=1, help="threads that count words; the result does not depend on them"
    )
    parser.add_argument("--downloads", type=Path, default=Path("downloads"), help="folder that keeps downloaded files")
    arguments = parsed(parser)
    make_tokenizer(arguments.settings, arguments.text, arguments.output, arguments.downloads, arguments.threads)


if __name__ == "__main__":
    main()
