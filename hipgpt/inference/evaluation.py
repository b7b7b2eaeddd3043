"""Evaluate a finished model on the whole validation split, compared with predictors without a network."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hipgpt.base.csv_file import read_csv, write_csv
from hipgpt.compute.device import Device
from hipgpt.config.settings import ModelConfig
from hipgpt.data.batches import windows
from hipgpt.data.tokenizer.tokenizer import Tokenizer
from hipgpt.data.tokens import Tokens
from hipgpt.gpt.parameters import ParameterTensors
from hipgpt.gpt.scoring import Scorer
from hipgpt.inference.baselines import COLUMNS, loss_columns

ROWS_AT_ONCE = 2048


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


def write_evaluation(path: Path, predictions: Predictions, baselines: Path, tokenizer: Tokenizer) -> None:
    """Write evaluation.csv: the row of the model, then those of baselines.csv, on the same tokens and bytes."""
    counts = tokenizer.byte_counts[predictions.targets]
    extent = len(predictions.targets), int(counts.sum())
    accuracy = float((predictions.ranks == 0).mean()), float((predictions.ranks < 5).mean())
    others = read_csv(baselines, dict.fromkeys(COLUMNS, str), "run the baselines stage again")
    model = ["model", *loss_columns(predictions.nats, counts), *accuracy, *extent]
    rows = [model, *([*row.values()] for row in others)]
    write_csv(path, COLUMNS, rows)  # whole, because Snakemake takes a file that exists as done
