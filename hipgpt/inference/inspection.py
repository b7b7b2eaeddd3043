"""Look into a finished model: the loss of each token of a held-out passage, attention in a sentence, merges of words.

inspection.json holds the result for the run's page.
"""

import base64
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hipgpt.base.json_files import write_json
from hipgpt.base.terminal import readable
from hipgpt.compute.device import Device
from hipgpt.compute.plan import Plan
from hipgpt.compute.tensor import Arena, DType, Field
from hipgpt.config.settings import ModelConfig
from hipgpt.data.batches import windows
from hipgpt.data.tokenizer.pretokenize import split_pieces
from hipgpt.data.tokenizer.reference import BYTES
from hipgpt.data.tokenizer.tokenizer import Tokenizer
from hipgpt.data.tokens import Tokens
from hipgpt.gpt.activations import activations
from hipgpt.gpt.model import Network
from hipgpt.gpt.parameters import ParameterTensors
from hipgpt.gpt.scoring import Scorer

PASSAGE_TOKENS, SENTENCE_TOKENS, WORDS = 400, 24, 4


def write_inspection(
    path: Path, device: Device, model: ModelConfig, weights: ParameterTensors, tokenizer: Tokenizer, held_out: Tokens
) -> None:
    """Write inspection.json about the beginning of the validation split. weights: f32.

    passage: [text, nats] of each token; sentence: texts of the first tokens; attention: base64 of (L, H, n, n) bytes,
    shares times 255; words: the merge tree of the longest words of the passage.
    """
    passage = held_out.windows(np.array([0]), min(PASSAGE_TOKENS, len(held_out)))[0]
    nats = passage_losses(device, model, weights, held_out, len(passage))
    sentence = passage[: min(SENTENCE_TOKENS, model.context_length)]
    shares = attention_shares(device, model, weights, sentence)
    texts = [readable(tokenizer.token_bytes(token)) for token in passage.tolist()]
    losses: list[float | None] = [None, *(round(float(loss), 3) for loss in nats)]  # the first token is not predicted
    content = {
        "passage": [[text, loss] for text, loss in zip(texts, losses, strict=True)],
        "sentence": texts[: len(sentence)],
        "heads": [model.num_layers, model.num_heads],
        "attention": base64.b64encode(np.round(shares * 255).astype(np.uint8).tobytes()).decode(),
        "words": [merge_trees(tokenizer, word) for word in longest_words(tokenizer, passage)],
    }
    write_json(path, content)


def passage_losses(
    device: Device, model: ModelConfig, weights: ParameterTensors, tokens: Tokens, length: int
) -> NDArray[np.float32]:
    """Return the loss in nats, (length - 1,), of the first tokens of a split but the first, from a sliding context."""
    S = model.context_length
    needed = itertools.takewhile(lambda window: window[0] < length, windows(tokens, S, max(1, S // 2)))
    starts, first_counted = (np.array(column) for column in zip(*needed, strict=True))
    scores = Scorer(device, model, weights, len(starts))(tokens.windows(starts, S + 1))
    counted: NDArray[np.float32] = scores.nats[np.arange(S) >= first_counted[:, None]]
    return counted[: length - 1]


def attention_shares(
    device: Device, model: ModelConfig, weights: ParameterTensors, tokens: NDArray[np.int32]
) -> NDArray[np.float64]:
    """Return (L, H, S, S): which share of a head's attention each token (row) gives to each token before it and itself.

    The kernels never store them, so they are computed from the queries and keys of the pass.
    """
    S, H, D = len(tokens), model.num_heads, model.head_channels
    inputs = Arena(device, "inputs", [Field("tokens", (1, S), DType.I32), Field("starts", (1,), DType.I32)])
    saved = Arena(device, "activations", activations(model, 1, S))
    plan = Plan(device, "inspection", [weights.arena.flat, inputs.flat])
    Network(model, weights, saved, inputs["tokens"], inputs["starts"]).forward(plan)
    device.write(inputs["tokens"], np.ascontiguousarray(tokens[None]))
    plan.run()
    blocks = [device.read(saved[f"block{i}.qkv"]).reshape(S, 3, H, D) for i in range(model.num_layers)]
    query, key = (np.stack([block[:, at] for block in blocks]).transpose(0, 2, 1, 3).astype(float) for at in (0, 1))
    scores = np.where(np.tri(S, dtype=bool), query @ key.swapaxes(-1, -2) / math.sqrt(D), -np.inf)
    weight = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares: NDArray[np.float64] = weight / weight.sum(axis=-1, keepdims=True)
    return shares


def merge_trees(tokenizer: Tokenizer, word: bytes) -> list[dict[str, Any]]:
    """Return the tokens of a word, each as a tree: its text, the rank of the merge that made it, and its two parts."""
    number = {index: at for at, index in enumerate(tokenizer.ids)}

    def tree(at: int) -> dict[str, Any]:
        node: dict[str, Any] = {"text": readable(tokenizer.token_bytes(tokenizer.ids[at]))}
        if at >= BYTES:
            node |= {"rank": at - BYTES, "parts": [tree(part) for part in tokenizer.merges[at - BYTES]]}
        return node

    ids = tokenizer.encode(word).tolist()
    return [
        tree(number[index]) if index in number else {"text": readable(tokenizer.token_bytes(index))} for index in ids
    ]


def longest_words(tokenizer: Tokenizer, passage: Sequence[int] | NDArray[np.int32]) -> list[bytes]:
    """Return the longest words of a passage, the longest first. passage: (N,) ids."""
    documents = itertools.groupby(passage, key=lambda index: index != tokenizer.end_of_text)
    texts = [tokenizer.decode(list(ids)) for is_text, ids in documents if is_text]
    words = dict.fromkeys(word for text in texts for word in split_pieces(text, tokenizer.pattern))
    letters = [word for word in words if word.strip().isalpha()]
    return sorted(letters, key=len, reverse=True)[:WORDS]
