"""Reads API misuses, one a line, and carries each out: "ok", or the exception that refused it.

python -m support.misuse < calls        (a line: NAME and a Python literal of its arguments, drawn by test_misuse.py)
"""

import functools
import sys
from ast import literal_eval
from collections.abc import Callable
from typing import Any

import numpy as np

from hipgpt.base.errors import UserError
from hipgpt.compute.catalogue import CATALOGUE
from hipgpt.compute.contract import ContractError
from hipgpt.compute.device import Device
from hipgpt.compute.open_device import open_device
from hipgpt.compute.plan import Plan
from hipgpt.compute.tensor import Arena, DType, Field, Tensor
from hipgpt.config.settings import SamplingConfig
from hipgpt.data.batches import Batches, windows
from hipgpt.data.tokenizer.tokenizer import Tokenizer, train
from hipgpt.data.tokens import Tokens
from hipgpt.gpt.decoder import Decoder
from hipgpt.inference.reference import probabilities
from hipgpt.inference.sampling import generate_one
from support import tiny

REFUSALS = (ValueError, TypeError, UserError, ContractError)
TEXT = b"the king and the queen " * 50


def value(description: Any) -> Any:
    """Return the value that a literal stands for: ("array", dtype, shape, step) is a strided array, and so on."""
    match description:
        case ("array", str(dtype), tuple(shape), int(step)):
            whole = np.arange(int(np.prod(shape)) * abs(step), dtype=np.float64).astype(dtype)
            return whole[::step][: int(np.prod(shape))].reshape(shape)
        case ("text", int(count)):
            return TEXT * count
        case ("nan",):
            return float("nan")
        case ("list", list(items)):
            return [value(item) for item in items]
        case ("dtype", str(name)):
            return DType[name]
    return description


@functools.cache
def device() -> Device:
    return open_device("cpu", 2)


@functools.cache
def decoder() -> Decoder:
    return Decoder(device(), tiny.MODEL, tiny.place(device(), tiny.MODEL, tiny.draw_arrays()))


def encode_all(texts: Any, threads: Any) -> list[Any]:
    return list(tiny.tokenizer().encode_all(texts, threads))


def restart(tokens: Any) -> Any:
    decoder().restart([tokens])
    return decoder().logits()


def continued(prompt: Any, *sampling: Any) -> list[int]:
    names = ("num_tokens", "temperature", "top_k", "top_p", "repetition_penalty", "stop_at_end_of_text", "seed")
    settings = SamplingConfig(**dict(zip(names, sampling, strict=True)))
    return list(generate_one(decoder(), prompt, settings, tiny.tokenizer().end_of_text))


def drawn(logits: Any, context: Any, temperature: Any, top_k: Any, top_p: Any) -> Any:
    return probabilities(logits, context, SamplingConfig(5, temperature, top_k, top_p))


def starts(length: Any, batch: Any, context: Any, seed: Any, step: Any) -> Any:
    return Batches(Tokens([np.arange(length, dtype=np.uint16)]), batch, context, seed).batch(step)


def tokens(starts: Any, length: Any) -> Any:
    return Tokens([np.arange(100, dtype=np.uint16), np.arange(7, dtype=np.uint16)]).windows(starts, length)


def launch(op: Any, shapes: Any, scalars: Any) -> None:
    """Record one op over tensors of these shapes and dtypes, and run it if its contract allows."""
    fields = [Field(str(number), shape, DType[name]) for number, (shape, name) in enumerate(shapes)]
    arena = Arena(device(), "misused", fields)
    arguments: list[Tensor] = [arena[field.name] for field in fields]
    plan = Plan(device(), "misuse", arguments)
    plan(CATALOGUE[op], *arguments, **{name: value(number) for name, number in scalars.items()})
    plan.run()


def viewed(shape: Any, view: Any, start: Any, stop: Any) -> Any:
    tensor = Arena(device(), "viewed", [Field("x", shape)])["x"]
    return device().read(tensor.rows(start, stop)), device().read(tensor.view(*view))


def written(shape: Any, values: Any) -> Any:
    tensor = Arena(device(), "written", [Field("x", shape)])["x"]
    device().write(tensor, values)
    return device().read(tensor)


CALLS: dict[str, Callable[..., Any]] = {
    "encode": lambda text: tiny.tokenizer().encode(text),
    "encode_ordinary": lambda texts: tiny.tokenizer().encode_ordinary(texts),
    "encode_all": encode_all,
    "decode": lambda ids: tiny.tokenizer().decode(ids),
    "token_bytes": lambda token: tiny.tokenizer().token_bytes(token),
    "train": lambda chunks, size, threads: train(chunks, size, threads=threads),
    "tokenizer": lambda merges, ids, specials: Tokenizer(merges, "gpt2", ids, specials).encode(TEXT),
    "windows": tokens,
    "batch": starts,
    "covering": lambda length, context, stride: list(windows(range(length), context, stride)),
    "append": lambda token: decoder().append([token]),
    "restart": restart,
    "generate": continued,
    "probabilities": drawn,
    "launch": launch,
    "view": viewed,
    "write": written,
}


def main() -> None:
    for line in sys.stdin:
        name, arguments = literal_eval(line)
        try:
            CALLS[name](*map(value, arguments))
            print("ok", flush=True)
        except REFUSALS as error:
            print(type(error).__name__, flush=True)
        except BaseException as error:
            print(f"wrong: {type(error).__name__}: {error}".replace("\n", " "), flush=True)


if __name__ == "__main__":
    main()
