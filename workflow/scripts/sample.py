"""Continue the configured prompts: writes samples.txt to read and samples.csv with the settings."""

import argparse
import json
from pathlib import Path

import _package  # noqa: F401 (first: it decides which hipgpt is imported)
from _arguments import add_checkpoint, add_device, parsed

from hipgpt.base.errors import exit_on_user_error
from hipgpt.compute.open_device import open_device
from hipgpt.data.tokenizer.tokenizer import Tokenizer
from hipgpt.gpt.checkpoint import load_weights
from hipgpt.gpt.decoder import Decoder, sequences_together
from hipgpt.gpt.precision import weights_in
from hipgpt.inference.samples import write_samples


@exit_on_user_error
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_checkpoint(parser)
    parser.add_argument("--sampling", required=True, type=json.loads, help="the sampling section, as JSON")
    parser.add_argument(
        "--precision", default="auto", help="float32, bfloat16, or auto for the fastest one on the device"
    )
    parser.add_argument("--text", required=True, type=Path, help="samples.txt")
    parser.add_argument("--table", required=True, type=Path, help="samples.csv")
    add_device(parser)
    arguments = parsed(parser)

    tokenizer, device = Tokenizer.load(arguments.tokenizer), open_device(arguments.device, arguments.threads)
    model, weights = load_weights(arguments.checkpoint, device, tokenizer.sha256)
    at_once = sequences_together(model, len(arguments.sampling["prompts"]))
    decoder = Decoder(device, model, weights_in(arguments.precision, device, model, weights), at_once)
    write_samples(decoder, tokenizer, arguments.sampling, arguments.text, arguments.table)


if __name__ == "__main__":
    main()
