"""`hipgpt generate`: continue a text with a trained run."""

import argparse
import codecs
import os
import sys

from hipgpt.base.errors import UserError
from hipgpt.base.terminal import printable
from hipgpt.cli.arguments import Commands, add_command, add_run, finished_run
from hipgpt.config.settings import SamplingConfig

HELP = {
    "num_tokens": "length of the continuation at most, in tokens",
    "temperature": "divides the logits; 0 always takes the most probable token",
    "top_k": "sample among the k most probable tokens",
    "top_p": "sample among the most probable tokens that together have this probability",
    "repetition_penalty": "above 1, makes tokens of the context less probable",
    "seed": "the same seed gives the same text",
}
TYPES = {"num_tokens": int, "top_k": int, "seed": int}


def add(commands: Commands) -> None:
    parser = add_command(commands, generate, "continue a text with a trained run")
    add_run(parser)
    parser.add_argument("--prompt", default="", help="text to continue (default: none, which begins a document)")
    parser.add_argument(
        "--device",
        default="auto",
        help="cpu, cuda, hip, cuda:1, or auto for the best one present (default: %(default)s)",
    )
    defaults = SamplingConfig(num_tokens=100)
    for name, about in HELP.items():
        default = getattr(defaults, name)
        shown = f"{about} (default: {'all' if default is None else default})"
        option, metavar = f"--{name.replace('_', '-')}", name.split("_")[-1].upper()
        parser.add_argument(option, type=TYPES.get(name, float), default=default, metavar=metavar, help=shown)


def generate(arguments: argparse.Namespace) -> None:
    """Stream a continuation of the prompt to stdout, with control characters escaped if that is a terminal."""
    from hipgpt.compute.open_device import open_device
    from hipgpt.data.tokenizer.tokenizer import Tokenizer
    from hipgpt.gpt.checkpoint import load_weights
    from hipgpt.gpt.decoder import Decoder
    from hipgpt.gpt.precision import weights_in
    from hipgpt.inference.sampling import generate as continuation
    from hipgpt.reports.runs import read_record

    folder = finished_run(arguments)
    settings = SamplingConfig(**{name: getattr(arguments, name) for name in HELP})
    _check(settings)
    tokenizer = Tokenizer.load(folder / "model" / "tokenizer.json")
    device = open_device(arguments.device)
    checkpoint = folder / "checkpoints" / "best.safetensors"
    model, weights = load_weights(checkpoint, device, tokenizer.sha256)
    precision = read_record(folder)["config"]["training"]["precision"]
    decoder = Decoder(device, model, weights_in(precision, device, model, weights))
    text = codecs.getincrementaldecoder("utf-8")(errors="replace")
    shown = printable if sys.stdout.isatty() else str
    prompt = os.fsencode(arguments.prompt)  # the bytes that were typed, whether or not they are UTF-8
    sys.stdout.write(shown(text.decode(prompt)))
    for token in continuation(decoder, tokenizer.encode(prompt).tolist(), settings, tokenizer.end_of_text):
        sys.stdout.write(shown(text.decode(tokenizer.token_bytes(token))))
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
