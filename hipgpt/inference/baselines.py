"""Predictors without a network, with which the loss of a model on the same tokens or bytes is compared."""

import lzma
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hipgpt.base.csv_file import write_csv
from hipgpt.data.bits_per_byte import bits_per_byte
from hipgpt.data.tokenizer.tokenizer import Tokenizer
from hipgpt.data.tokens import Tokens

COLUMNS = ("predictor", "loss_nats_per_token", "perplexity", "bits_per_byte", "next_token_accuracy", "top5_accuracy",
           "tokens", "bytes")  # fmt: skip
NGRAMS = ("unigram", "bigram", "trigram")

MOST_TOKENS = 50_000_000  # from the end of the training split: the counts of more tokens would need too much memory
LZMA_DICTIONARY_BYTES = 8 << 20
BLOCK = 1 << 20


def write_baselines(path: Path, train: Tokens, validation: Tokens, tokenizer: Tokenizer) -> None:
    """Write baselines.csv: a row for each predictor on the whole validation split, in the columns of evaluation.csv."""
    known, text = read_tokens(train, MOST_TOKENS), read_tokens(validation, len(validation))
    held_out, before = _decoded(tokenizer, text), _decoded(tokenizer, known[-LZMA_DICTIONARY_BYTES:])
    counts = tokenizer.byte_counts[text[1:]]
    extent = len(counts), int(counts.sum())
    with ThreadPoolExecutor(1) as pool:
        bits = pool.submit(lzma_bits, before, held_out)
        nats = ngram_losses(known, text, len(tokenizer.byte_counts), len(NGRAMS))
        lzma_bits_per_byte = bits.result() / len(held_out)
    rows = [[name, *loss_columns(losses, counts), "", "", *extent] for name, losses in zip(NGRAMS, nats, strict=True)]
    rows.append(["lzma", "", "", lzma_bits_per_byte, "", "", "", len(held_out)])
    write_csv(path, COLUMNS, rows)


def loss_columns(nats: NDArray[np.floating[Any]], byte_counts: NDArray[np.int64]) -> tuple[float, float, float]:
    """Return a row's loss in nats per token, perplexity and bits per byte, from (N,) losses and bytes of the tokens."""
    mean = float(nats.mean(dtype=np.float64))
    return mean, math.exp(mean), bits_per_byte(nats, byte_counts)


def _decoded(tokenizer: Tokenizer, tokens: NDArray[np.int64]) -> bytes:
    """Return the text of tokens, without the special ones that divide documents."""
    return tokenizer.decode(tokens[tokens != tokenizer.end_of_text])


def read_tokens(tokens: Tokens, most: int) -> NDArray[np.int64]:
    """Return the last `most` tokens of a split, (N,) int64."""
    first = max(0, len(tokens) - most)
    starts = range(first, len(tokens), BLOCK)
    return np.concatenate([tokens.windows(np.array([s]), min(BLOCK, len(tokens) - s))[0] for s in starts]).astype(
        np.int64
    )


def ngram_losses(
    train: NDArray[np.int64], text: NDArray[np.int64], vocab_size: int, order: int
) -> list[NDArray[np.float64]]:
    """Return the losses in nats, (N - 1,), of each token of `text` but the first, by back-off n-gram models of `train`.

    The models are those of the orders 1 to `order`, because each is made from the shorter one.

    Interpolated absolute discounting: p(w | h) = max(n(hw) - d, 0) / n(h) + d * types(h) / n(h) * p(w | shorter h).
    d = n1 / (n1 + 2 n2), where n1 and n2 count the n-grams seen once and twice. If none was seen once, d = 1/2, because
    d = 0 would leave no probability for unseen n-grams. For an unseen history, p is that of the shorter history. The
    unigram is (n(w) + 1) / (N + V). The first tokens of the text have shorter histories.
    train, text: (N,) ids. Ney, Essen & Kneser 1994, "On structuring probabilistic dependences in stochastic
    language modelling".
    """
    counts = np.bincount(train, minlength=vocab_size)
    probability: NDArray[np.float64] = ((counts + 1) / (len(train) + vocab_size))[text[1:]]
    losses = [-np.log(probability)]
    for length in range(2, order + 1):
        seen, seen_counts = np.unique(_keys(train, length, vocab_size), return_counts=True)
        histories, begins, types = np.unique(seen // vocab_size, return_index=True, return_counts=True)
        totals = np.add.reduceat(seen_counts, begins)
        once, twice = (int((seen_counts == n).sum()) for n in (1, 2))
        discount = once / (once + 2 * twice) if once else 0.5
        queries = _keys(text, length, vocab_size)
        n_word, n_history = _look_up(seen, seen_counts, queries), _look_up(histories, totals, queries // vocab_size)
        n_types = _look_up(histories, types, queries // vocab_size)
        shorter = probability[length - 2 :]
        known = n_history > 0
        longer = (np.maximum(n_word - discount, 0) + discount * n_types * shorter)[known] / n_history[known]
        probability[length - 2 :][known] = longer
        losses.append(-np.log(probability))
    return losses


def _keys(tokens: NDArray[np.int64], length: int, vocab_size: int) -> NDArray[np.int64]:
    """Return each run of `length` tokens as one number in base vocab_size, (N - length + 1,) int64."""
    keys = tokens[: len(tokens) - length + 1].copy()
    for offset in range(1, length):
        keys = keys * vocab_size + tokens[offset : len(tokens) - length + 1 + offset]
    return keys


def _look_up(keys: NDArray[np.int64], values: NDArray[np.int64], queries: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the value of each queried key, 0 if it is not among the sorted keys."""
    indices = np.minimum(np.searchsorted(keys, queries), len(keys) - 1)
    return np.where(keys[indices] == queries, values[indices], 0)


def lzma_bits(train: bytes, text: bytes) -> int:
    """Return how many bits `text` adds to the LZMA stream of the last LZMA_DICTIONARY_BYTES of `train`."""
    known = train[-LZMA_DICTIONARY_BYTES:]
    with ThreadPoolExecutor(2) as threads:  # in parallel, because lzma releases Python's lock
        both, alone = threads.map(_compress, (known + text, known))
    return 8 * (len(both) - len(alone))


def _compress(data: bytes) -> bytes:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 2 * LZMA_DICTIONARY_BYTES}]
    return lzma.compress(data, format=lzma.FORMAT_RAW, filters=filters)
