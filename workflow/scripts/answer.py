"""Let a checkpoint answer multiple-choice tasks: writes tasks.csv."""

import argparse
import json
from pathlib import Path

import _package  # noqa: F401 (first: it decides which hipgpt is imported)
from _arguments import add_checkpoint, add_device, parsed

from hipgpt.base.errors import exit_on_user_error
from hipgpt.compute.open_device import open_device
from hipgpt.data.tokenizer.tokenizer import Tokenizer
from hipgpt.gpt.checkpoint import load_weights
from hipgpt.inference.multiple_choice import answer_tasks


@exit_on_user_error
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_checkpoint(parser)
    parser.add_argument("--tasks", required=True, type=json.loads, help="evaluation.tasks of config.yaml, as JSON")
    parser.add_argument("--output", required=True, type=Path, help="tasks.csv")
    add_device(parser)
    arguments = parsed(parser)

    tokenizer, device = Tokenizer.load(arguments.tokenizer), open_device(arguments.device, arguments.threads)
    model, weights = load_weights(arguments.checkpoint, device, tokenizer.sha256)
    answer_tasks(arguments.output, device, model, weights, tokenizer, arguments.tasks)


if __name__ == "__main__":
    main()
