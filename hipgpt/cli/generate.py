"""`hipgpt generate`: continue a text with a trained run."""

import argparse
import codecs
import contextlib
import io
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from hipgpt.base.errors import UserError
from hipgpt.base.terminal import printable
from hipgpt.cli.arguments import Commands, add_command, add_json, add_run, finished_run, integer, number, print_json
from hipgpt.config.sampling import SamplingError, with_settings
from hipgpt.config.settings import SamplingConfig

HELP = {
    "num_tokens": "length of the continuation at most, in tokens",
    "temperature": "divides the logits; 0 always takes the most probable token",
    "top_k": "sample among the k most probable tokens; 0: among all",
    "top_p": "sample among the most probable tokens that together have this probability",
    "repetition_penalty": "above 1, makes tokens of the context less probable",
    "seed": "the same seed gives the same text",
}
PROMPT = "> "  # of --chat
ALL_TOKENS = 0  # the value of --top-k that the config writes as null


def top_k(text: str) -> int:
    """Return the value of --top-k. Raises ArgumentTypeError if it is not one."""
    try:
        if (number := int(text)) >= 0:
            return number
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"got {text!r}, expected an integer >= 0; 0 samples among all tokens")


TYPES = {"num_tokens": integer, "top_k": top_k, "seed": integer}


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
    prompts.add_argument(
        "--chat", action="store_true", help="read lines, and continue all that was said so far after each"
    )
    add_run(parser)
    parser.add_argument(
        "--device",
        default="auto",
        help="cpu, cuda, hip, cuda:1, or auto for the best one present (default: %(default)s)",
    )
    parser.add_argument(
        "-n",
        "--num-samples",
        type=integer,
        default=1,
        metavar="N",
        help="number of continuations (default: %(default)s)",
    )
    parser.add_argument("--stop", metavar="TEXT", help="end a continuation before this text (default: none)")
    for name, about in HELP.items():
        option, metavar = f"--{name.replace('_', '-')}", name.split("_")[-1].upper()
        shown = f"{about} (default: as the run)"
        parser.add_argument(option, type=TYPES.get(name, number), metavar=metavar, help=shown)
    add_json(parser)


def generate(arguments: argparse.Namespace) -> None:
    """Stream continuations of the prompt to stdout, with control characters escaped if that is a terminal."""
    from hipgpt.compute.open_device import open_device
    from hipgpt.gpt.checkpoint import load_weights
    from hipgpt.gpt.decoder import Decoder, sequences_together
    from hipgpt.gpt.precision import weights_in
    from hipgpt.inference.sampling import generate_all, generate_one
    from hipgpt.reports.runs import read_record
    from hipgpt.reports.trained import BEST, run_tokenizer

    folder = finished_run(arguments)
    settings = _settings(arguments, folder)
    tokenizer, device = run_tokenizer(folder), open_device(arguments.device)
    model, weights = load_weights(folder / BEST, device, tokenizer.sha256)
    precision = read_record(folder)["config"]["training"]["precision"]
    at_once = 1 if arguments.chat else sequences_together(model, arguments.num_samples)
    decoder = Decoder(device, model, weights_in(precision, device, model, weights), at_once)
    how = settings, tokenizer.end_of_text
    stop = None if arguments.stop is None else os.fsencode(arguments.stop)

    def text(drawn: Iterable[int]) -> Iterator[bytes]:
        pieces = map(tokenizer.token_bytes, drawn)
        return pieces if stop is None else _until(stop, pieces)

    def has_stopped(drawn: Sequence[int]) -> bool:
        """Return whether `stop` is in the tokens that the last one may have completed; each has a byte or more."""
        return stop is not None and stop in b"".join(map(tokenizer.token_bytes, drawn[-len(stop) :]))

    if arguments.chat:
        _chat(lambda said, index: text(generate_one(decoder, tokenizer.encode(said).tolist(), *how, stream=index)))
        return
    prompt = _prompt(arguments)
    ids = tokenizer.encode(prompt).tolist()
    one = at_once == 1  # shown as it is drawn
    samples: Iterable[Iterable[int]]
    if one:
        samples = [generate_one(decoder, ids, *how)]
    else:
        samples = generate_all(decoder, [ids] * arguments.num_samples, *how, has_stopped)
    found = []
    for index, tokens in enumerate(samples):
        drawn: list[int] = []
        pieces = text(_kept(tokens, drawn))
        if arguments.json:
            continuation = b"".join(pieces).decode("utf-8", "replace")
            stopped = stop is not None and stop in b"".join(map(tokenizer.token_bytes, drawn))
            ended = "stop" if stopped else "length" if len(drawn) == settings.num_tokens else "end of text"
            found.append({"text": continuation, "tokens": drawn, "ended": ended})
            continue
        if not one:
            sys.stdout.write(f"--- sample {index + 1} of {arguments.num_samples}\n")
        _write(itertools.chain([prompt], pieces))
    if arguments.json:
        context = prompt.decode("utf-8", "replace")
        print_json({"run": folder.name, "prompt": context, "sampling": vars(settings), "samples": found})


def _chat(answer: Callable[[bytes, int], Iterator[bytes]]) -> None:
    """Read lines to the end of the input. Show an answer to each, which continues all that was said before.

    answer: from all that was said, and the number of the line. Ctrl-D ends the input of a terminal. Lines of a pipe are
    shown as a terminal shows them, with the prompt in front, so that the output tells answers apart.
    """
    if sys.stdin is None:
        raise UserError("--chat: standard input is closed, expected lines or a terminal")
    on_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if on_terminal:
        with contextlib.suppress(ImportError):  # some builds of Python lack it
            import readline  # noqa: F401 (gives input() a history and keys that edit)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # lines may be any bytes
    said = b""
    for index in itertools.count():
        try:
            line = input(PROMPT if on_terminal else "")
        except EOFError:
            sys.stdout.write("\n" if on_terminal else "")
            return
        if not on_terminal:
            _write([PROMPT.encode(), os.fsencode(line)])
        said += os.fsencode(line) + b"\n"
        said += _write(answer(said, index)) + b"\n"


def _kept(tokens: Iterable[int], drawn: list[int]) -> Iterator[int]:
    """Yield the tokens, and append each to `drawn`."""
    for token in tokens:
        drawn.append(token)
        yield token


def _write(pieces: Iterable[bytes]) -> bytes:
    """Stream the pieces of a text and a line end to stdout, and return the text."""
    decoder, text = codecs.getincrementaldecoder("utf-8")(errors="replace"), b""
    shown = printable if sys.stdout.isatty() else str
    for piece in pieces:
        text += piece
        sys.stdout.write(shown(decoder.decode(piece)))
        sys.stdout.flush()
    sys.stdout.write(decoder.decode(b"", final=True) + "\n")
    return text


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
    if given.get("top_k") == ALL_TOKENS:
        given["top_k"] = None
    try:
        settings = with_settings(sampling_of(folder), given)
    except SamplingError as error:
        raise UserError(f"--{error.field.replace('_', '-')}: {error.problem}") from error
    if arguments.num_samples < 1:
        raise UserError(f"--num-samples: got {arguments.num_samples}, expected an integer >= 1")
    if arguments.chat and (arguments.json or arguments.num_samples > 1):
        raise UserError("--chat: got --json or --num-samples with it, expected neither")
    if arguments.stop == "":
        raise UserError("--stop: got an empty text, expected at least one character")
    return settings
