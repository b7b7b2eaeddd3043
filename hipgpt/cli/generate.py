"""`hipgpt generate`: continue a text with a trained run."""

import argparse
import codecs
import dataclasses
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

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
UNSAMPLED = SamplingConfig(num_tokens=100)  # settings for a run without samples.csv


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        generate,
        "continue a text with a trained run",
        "The run's settings are those of the section `sampling` of its config.",
    )
    prompts = parser.add_mutually_exclusive_group()
    prompts.add_argument("text", nargs="?", metavar="PROMPT", help="text to continue; - reads it from standard input")
    prompts.add_argument("--prompt", metavar="PROMPT", help="the same (default: none, which begins a document)")
    add_run(parser)
    parser.add_argument(
        "--device",
        default="auto",
        help="cpu, cuda, hip, cuda:1, or auto for the best one present (default: %(default)s)",
    )
    parser.add_argument(
        "-n", "--num-samples", type=int, default=1, metavar="N", help="number of continuations (default: %(default)s)"
    )
    parser.add_argument("--stop", metavar="TEXT", help="end a continuation before this text (default: none)")
    for name, about in HELP.items():
        option, metavar = f"--{name.replace('_', '-')}", name.split("_")[-1].upper()
        shown = f"{about} (default: as the run)"
        parser.add_argument(option, type=TYPES.get(name, float), metavar=metavar, help=shown)


def generate(arguments: argparse.Namespace) -> None:
    """Stream continuations of the prompt to stdout, with control characters escaped if that is a terminal."""
    from hipgpt.compute.open_device import open_device
    from hipgpt.data.tokenizer.tokenizer import Tokenizer
    from hipgpt.gpt.checkpoint import load_weights
    from hipgpt.gpt.decoder import MOST_SEQUENCES, Decoder
    from hipgpt.gpt.precision import weights_in
    from hipgpt.inference.sampling import generate_all, generate_one
    from hipgpt.reports.runs import read_record

    folder = finished_run(arguments)
    settings = _settings(arguments, folder)
    tokenizer = Tokenizer.load(folder / "model" / "tokenizer.json")
    device = open_device(arguments.device)
    checkpoint = folder / "checkpoints" / "best.safetensors"
    model, weights = load_weights(checkpoint, device, tokenizer.sha256)
    precision = read_record(folder)["config"]["training"]["precision"]
    at_once = min(arguments.num_samples, MOST_SEQUENCES)
    decoder = Decoder(device, model, weights_in(precision, device, model, weights), at_once)
    prompt = _prompt(arguments)
    ids = tokenizer.encode(prompt).tolist()
    samples: Iterable[Iterable[int]]
    if at_once == 1:  # shown token by token
        samples = [generate_one(decoder, ids, settings, tokenizer.end_of_text)]
    else:
        samples = generate_all(decoder, [ids] * arguments.num_samples, settings, tokenizer.end_of_text)
    for number, tokens in enumerate(samples):
        if at_once > 1:
            sys.stdout.write(f"--- sample {number}\n")
        pieces = map(tokenizer.token_bytes, tokens)
        _write(prompt, pieces if arguments.stop is None else _until(os.fsencode(arguments.stop), pieces))


def _write(prompt: bytes, pieces: Iterator[bytes]) -> None:
    text = codecs.getincrementaldecoder("utf-8")(errors="replace")
    shown = printable if sys.stdout.isatty() else str
    sys.stdout.write(shown(text.decode(prompt)))
    for piece in pieces:
        sys.stdout.write(shown(text.decode(piece)))
        sys.stdout.flush()
    sys.stdout.write(text.decode(b"", final=True) + "\n")


def _until(stop: bytes, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the pieces of a text up to the first `stop`. Bytes that may begin it wait until that is decided."""
    waiting = b""
    for piece in pieces:
        waiting += piece
        if stop in waiting:
            yield waiting[: waiting.index(stop)]
            return
        held = next(
            size
            for size in range(min(len(stop) - 1, len(waiting)), -1, -1)
            if stop.startswith(waiting[len(waiting) - size :])
        )
        yield waiting[: len(waiting) - held]
        waiting = waiting[len(waiting) - held :]
    yield waiting


def _prompt(arguments: argparse.Namespace) -> bytes:
    """Return the bytes that were typed, whether or not they are UTF-8."""
    if arguments.text == "-":
        return sys.stdin.buffer.read()
    return os.fsencode(arguments.text or arguments.prompt or "")


def _settings(arguments: argparse.Namespace, folder: Path) -> SamplingConfig:
    """Return the run's own settings, with those that were given as options in their place."""
    from hipgpt.reports.samples import sampling_of

    given = {name: getattr(arguments, name) for name in HELP if getattr(arguments, name) is not None}
    settings = dataclasses.replace(sampling_of(folder) or UNSAMPLED, **given)
    checks = {
        "num_samples": (arguments.num_samples >= 1, ">= 1"),
        "num_tokens": (settings.num_tokens >= 1, ">= 1"),
        "temperature": (settings.temperature >= 0, ">= 0"),
        "top_k": (settings.top_k is None or settings.top_k >= 1, ">= 1"),
        "top_p": (0 < settings.top_p <= 1, "> 0 and <= 1"),
        "repetition_penalty": (settings.repetition_penalty > 0, "> 0"),
        "seed": (0 <= settings.seed < 2**64, ">= 0 and < 2^64"),
    }
    for name, (passed, expected) in checks.items():
        if not passed:
            got = {**vars(settings), "num_samples": arguments.num_samples}[name]
            raise UserError(f"--{name.replace('_', '-')}: got {got}, expected a number {expected}")
    if arguments.stop == "":
        raise UserError("--stop: got an empty text, expected at least one character")
    return settings
