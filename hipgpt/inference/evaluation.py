"""Evaluate a finished model on the whole validation split, compared with predictors without a network."""

import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hipgpt.base.csv_file import write_csv
from hipgpt.compute.device import Device
from hipgpt.config.settings import ModelConfig
from hipgpt.data.batches import windows
from hipgpt.data.tokenizer.tokenizer import Tokenizer
from hipgpt.data.tokens import Tokens
from hipgpt.gpt.parameters import ParameterTensors
from hipgpt.gpt.scoring import Scorer, bits_per_byte
from hipgpt.inference.baselines import LZMA_DICTIONARY_BYTES, MOST_TOKENS, lzma_bits, ngram_losses, read_tokens

ROWS_AT_ONCE = 2048
COLUMNS = ("predictor", "loss_nats_per_token", "perplexity", "bits_per_byte", "next_token_accuracy", "top5_accuracy",
           "tokens", "bytes")  # fmt: skip
NGRAMS = ("unigram", "bigram", "trigram")


@dataclass(frozen=True)
class Predictions:
    """nats, ranks (N,): loss and rank of each target token, where rank 0 is the model's first choice; targets (N,)."""

    nats: NDArray[np.float32]
    ranks: NDArray[np.int32]
    targets: NDArray[np.int32]


def predict(
    device: Device,
    model: ModelConfig,
    weights: ParameterTensors,
    tokens: Tokens,
    stride: int,
    follow: Callable[[int], object] = lambda scored: None,
) -> Predictions:
    """Score a split in windows that begin every `stride` tokens. Each target token counts once.

    follow: called after each batch with the number of tokens that it scored.
    """
    S = model.context_length
    scorer = Scorer(device, model, weights, max(1, ROWS_AT_ONCE // S))
    nats, ranks, targets = [], [], []
    remaining = windows(tokens, S, stride)
    while batch := list(islice(remaining, scorer.sequences)):
        starts, first_counted = (np.array(column) for column in zip(*batch, strict=True))
        rows = tokens.windows(starts, S + 1)
        scores, counted = scorer(rows), np.arange(S) >= first_counted[:, None]
        nats.append(scores.nats[counted])
        ranks.append(scores.ranks[counted])
        targets.append(rows[:, 1:][counted])
        follow(len(targets[-1]))
    return Predictions(np.concatenate(nats), np.concatenate(ranks), np.concatenate(targets))


@dataclass(frozen=True)
class Baselines:
    """Predictors without a network on a split. ngram_nats: (N,) f64 of each target token, by the name of the predictor.

    lzma_bits_per_byte: of the text.
    """

    ngram_nats: Mapping[str, NDArray[np.float64]]
    lzma_bits_per_byte: float
    bytes_of_text: int


def baselines(train: Tokens, validation: Tokens, tokenizer: Tokenizer) -> Baselines:
    """Return the baselines on the validation split. They need no device: a thread can compute them during `predict`."""
    known, text = read_tokens(train, MOST_TOKENS), read_tokens(validation, len(validation))
    held_out, before = _decoded(tokenizer, text), _decoded(tokenizer, known[-LZMA_DICTIONARY_BYTES:])
    with ThreadPoolExecutor(1) as pool:
        bits = pool.submit(lzma_bits, before, held_out)
        nats = ngram_losses(known, text, len(tokenizer.byte_counts), len(NGRAMS))
        return Baselines(dict(zip(NGRAMS, nats, strict=True)), bits.result() / len(held_out), len(held_out))


def write_evaluation(path: Path, predictions: Predictions, others: Baselines, tokenizer: Tokenizer) -> None:
    """Write evaluation.csv: the row of the model, then those of the baselines on the same tokens and bytes."""
    counts = tokenizer.byte_counts[predictions.targets]
    extent = len(predictions.targets), int(counts.sum())
    accuracy = float((predictions.ranks == 0).mean()), float((predictions.ranks < 5).mean())
    rows: list[list[Any]] = [["model", *_loss_columns(predictions.nats, counts), *accuracy, *extent]]
    rows += [[name, *_loss_columns(nats, counts), "", "", *extent] for name, nats in others.ngram_nats.items()]
    rows.append(["lzma", "", "", others.lzma_bits_per_byte, "", "", "", others.bytes_of_text])
    write_csv(path, COLUMNS, rows)  # whole, because Snakemake takes a file that exists as done


def _decoded(tokenizer: Tokenizer, tokens: NDArray[np.int64]) -> bytes:
    """Return the text of tokens, without the special ones that divide documents."""
    return tokenizer.decode(tokens[tokens != tokenizer.end_of_text])


def _loss_columns(nats: NDArray[np.floating[Any]], byte_counts: NDArray[np.int64]) -> tuple[float, float, float]:
    mean = float(nats.mean(dtype=np.float64))
    return mean, math.exp(mean), bits_per_byte(nats, byte_counts)
