"""Evaluate a checkpoint on the whole validation split, compared with baselines: writes evaluation.csv."""

import argparse
from pathlib import Path

import _package  # noqa: F401 (first: it decides which hipgpt is imported)
from _arguments import add_checkpoint, add_device, parsed

from hipgpt.base.errors import exit_on_user_error
from hipgpt.base.log import bar
from hipgpt.compute.open_device import open_device
from hipgpt.data.tokenizer.tokenizer import Tokenizer
from hipgpt.data.tokens import open_split
from hipgpt.gpt.checkpoint import load_weights
from hipgpt.inference.evaluation import predict, write_evaluation


@exit_on_user_error
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_checkpoint(parser)
    parser.add_argument("--manifest", required=True, type=Path, help="manifest.json of the token shards")
    parser.add_argument("--baselines", required=True, type=Path, help="baselines.csv of the same shards")
    parser.add_argument("--stride-tokens", required=True, type=int, help="tokens between the beginnings of two windows")
    parser.add_argument("--output", required=True, type=Path, help="evaluation.csv")
    add_device(parser)
    arguments = parsed(parser)

    tokenizer, device = Tokenizer.load(arguments.tokenizer), open_device(arguments.device, arguments.threads)
    model, weights = load_weights(arguments.checkpoint, device, tokenizer.sha256)
    validation = open_split(arguments.manifest, "validation", tokenizer.sha256, tokenizer.vocab_size)
    with bar(len(validation) - 1, arguments.output.resolve().parent.name) as shown:
        predictions = predict(device, model, weights, validation, arguments.stride_tokens, shown.update)
        shown.refresh()  # with the last count, and even if the text took less than a tenth of a second
    write_evaluation(arguments.output, predictions, arguments.baselines, tokenizer)


if __name__ == "__main__":
    main()
