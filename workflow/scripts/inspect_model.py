"""Look into a checkpoint: losses of a held-out passage, attention, merges of words. Writes inspection.json."""

import argparse
from pathlib import Path

import _package  # noqa: F401 (first: it decides which hipgpt is imported)
from _arguments import add_checkpoint, add_device, parsed

from hipgpt.base.errors import exit_on_user_error
from hipgpt.compute.open_device import open_device
from hipgpt.data.tokenizer.tokenizer import Tokenizer
from hipgpt.data.tokens import open_split
from hipgpt.gpt.checkpoint import load_weights
from hipgpt.inference.inspection import write_inspection


@exit_on_user_error
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_checkpoint(parser)
    parser.add_argument("--manifest", required=True, type=Path, help="manifest.json of the token shards")
    parser.add_argument("--output", required=True, type=Path, help="inspection.json")
    add_device(parser)
    arguments = parsed(parser)

    tokenizer, device = Tokenizer.load(arguments.tokenizer), open_device(arguments.device, arguments.threads)
    model, weights = load_weights(arguments.checkpoint, device, tokenizer.sha256)
    held_out = open_split(arguments.manifest, "validation", tokenizer.sha256, tokenizer.vocab_size)
    write_inspection(arguments.output, device, model, weights, tokenizer, held_out)


if __name__ == "__main__":
    main()
