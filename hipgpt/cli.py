"""The command `hipgpt`: what one does with a finished run."""

import argparse
import codecs
import os
import sys
from pathlib import Path

from hipgpt.config import DEFAULT_RUN, SamplingConfig
from hipgpt.errors import UserError, exit_on_user_error

HELP = {
    "num_tokens": "longest continuation, in tokens",
    "temperature": "divides the logits; 0 takes the likeliest token",
    "top_k": "sample among the k likeliest tokens",
    "top_p": "sample among the likeliest tokens that together have this probability",
    "repetition_penalty": "above 1, makes tokens of the context less likely",
    "seed": "same seed, same text",
}
TYPES = {"num_tokens": int, "top_k": int, "seed": int}


@exit_on_user_error
def main() -> None:
    parser = argparse.ArgumentParser(prog="hipgpt", description="Use what the workflow trained.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_generate(commands.add_parser("generate", help="continue a text with a trained run"))
    _add_tokenize(commands.add_parser("tokenize", help="show the tokens of a text"))
    arguments = parser.parse_args()
    arguments.command(arguments)


def _add_generate(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=generate)
    parser.add_argument("--run", default=DEFAULT_RUN, help="its name in config.yaml (default: %(default)s)")
    parser.add_argument(
        "--results", type=Path, default=Path("results"), help="folder of the runs (default: %(default)s)"
    )
    parser.add_argument("--prompt", default="", help="text to continue (default: none, begin a document)")
    parser.add_argument(
        "--device", default="auto", help="cpu, cuda, hip, cuda:1, or auto, the best present (default: %(default)s)"
    )
    defaults = SamplingConfig(num_tokens=100)
    for name, about in HELP.items():
        default = getattr(defaults, name)
        shown = f"{about} (default: {'all' if default is None else default})"
        option, metavar = f"--{name.replace('_', '-')}", name.split("_")[-1].upper()
        parser.add_argument(option, type=TYPES.get(name, float), default=default, metavar=metavar, help=shown)


def _add_tokenize(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=tokenize)
    parser.add_argument("text", nargs="?", help="the text (default: standard input)")
    parser.add_argument("--run", default=DEFAULT_RUN, help="whose tokenizer (default: %(default)s)")
    parser.add_argument(
        "--results", type=Path, default=Path("results"), help="folder of the runs (default: %(default)s)"
    )
    parser.add_argument("--tokenizer", type=Path, help="a tokenizer.json or .tiktoken to use instead of a run's")
    parser.add_argument("--ids", action="store_true", help="print ids alone, for other programs")


def tokenize(arguments: argparse.Namespace) -> None:
    """Show the pieces of a text, coloured on a terminal, and how many there are."""
    from hipgpt.tokenizer import Tokenizer
    from hipgpt.tokenizer.show import show_tokens

    path = arguments.tokenizer or _finished_run(arguments) / "model" / "tokenizer.json"
    tokenizer = Tokenizer.load(path)
    text = sys.stdin.buffer.read() if arguments.text is None else os.fsencode(arguments.text)
    ids = tokenizer.encode(text)
    if arguments.ids:
        print(*ids.tolist())
    else:
        show_tokens(tokenizer, ids, sys.stdout)


def _finished_run(arguments: argparse.Namespace) -> Path:
    """Return the folder of the run that --run and --results name."""
    folder = arguments.results / "runs" / arguments.run
    finished = sorted(path.parents[1].name for path in folder.parent.glob("*/model/tokenizer.json"))
    if arguments.run not in finished:
        found = f"no finished run {arguments.run!r} in {folder.parent}; found: {', '.join(finished) or 'none'}"
        raise UserError(f"--run: {found}; run snakemake first")
    return folder


def generate(arguments: argparse.Namespace) -> None:
    """Stream a continuation of the prompt to stdout."""
    from hipgpt import sampling
    from hipgpt.backends.device import open_device
    from hipgpt.checkpoint import load_weights
    from hipgpt.tokenizer import Tokenizer

    folder = _finished_run(arguments)
    settings = SamplingConfig(**{name: getattr(arguments, name) for name in HELP})
    _check(settings)
    tokenizer = Tokenizer.load(folder / "model" / "tokenizer.json")
    device = open_device(arguments.device)
    checkpoint = folder / "checkpoints" / "best.safetensors"
    decoder = sampling.Decoder(device, *load_weights(checkpoint, device, tokenizer.sha256))
    text = codecs.getincrementaldecoder("utf-8")(errors="replace")
    prompt = os.fsencode(arguments.prompt)  # the bytes that were typed, whether or not they are UTF-8
    sys.stdout.write(text.decode(prompt))
    for token in sampling.generate(decoder, tokenizer.encode(prompt).tolist(), settings, tokenizer.end_of_text):
        sys.stdout.write(text.decode(tokenizer.token_bytes(token)))
        sys.stdout.flush()
    sys.stdout.write(text.decode(b"", final=True) + "\n")


def _check(settings: SamplingConfig) -> None:
    checks = {
        "num_tokens": (settings.num_tokens >= 1, ">= 1"),
        "temperature": (settings.temperature >= 0, ">= 0"),
        "top_k": (settings.top_k is None or settings.top_k >= 1, ">= 1"),
        "top_p": (0 < settings.top_p <= 1, "> 0 and <= 1"),
        "repetition_penalty": (settings.repetition_penalty > 0, "> 0"),
        "seed": (0 <= settings.seed < 2**64, ">= 0 and < 2^64"),
    }
    for name, (passed, expected) in checks.items():
        if not passed:
            raise UserError(f"--{name.replace('_', '-')}: got {getattr(settings, name)}, expected a number {expected}")
