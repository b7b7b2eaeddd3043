"""Turn a part of a corpus into a token shard, such as train_00000.bin or validation_00000.bin."""
# Not tokenize.py: Python puts a script's folder first on its path, and tokenize is a module of the standard library.

import argparse
from pathlib import Path

import _package  # noqa: F401 (first: it decides which hipgpt is imported)
from _arguments import add_corpus, parsed

from hipgpt.base.errors import exit_on_user_error
from hipgpt.data.shards import write_shard
from hipgpt.data.tokenizer.tokenizer import Tokenizer


@exit_on_user_error
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_corpus(parser)
    parser.add_argument("--output", required=True, type=Path, help="the shard; its name says which part")
    parser.add_argument("--threads", type=int, default=1, help="threads that encode; the files do not depend on them")
    arguments = parsed(parser)
    tokenizer = Tokenizer.load(arguments.tokenizer)
    write_shard(arguments.corpus, tokenizer, arguments.output, arguments.train_shards, arguments.threads)


if __name__ == "__main__":
    main()
