"""Train a byte-level BPE tokenizer on a corpus's training split: writes tokenizer.json."""

import argparse
from pathlib import Path

from hipgpt.errors import exit_on_user_error
from hipgpt.tokenizer import text_chunks, train

CHUNK_BYTES = 1 << 20


@exit_on_user_error
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", required=True, type=Path, help="train.txt of a corpus")
    parser.add_argument("--vocab-size", required=True, type=int, help="256 bytes, the merges, and <|endoftext|>")
    parser.add_argument("--output", required=True, type=Path, help="tokenizer.json")
    arguments = parser.parse_args()
    with open(arguments.text, "rb") as stream:
        tokenizer = train(text_chunks(stream, CHUNK_BYTES), arguments.vocab_size)
    tokenizer.save(arguments.output)


if __name__ == "__main__":
    main()
