"""What the folder of a run tells: its row in the table of runs, and what sets two runs apart."""

import csv
import json
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hipgpt.config import ModelConfig
from hipgpt.errors import UserError
from hipgpt.model import parameter_count

HASH_DIGITS = 12  # of a SHA-256 in a table; run.json has all of them

Row = dict[str, str | int | float | None]


def read_record(folder: Path) -> dict[str, Any]:
    """Return run.json. Raises UserError if it is absent or damaged."""
    path = folder / "run.json"
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; run the train stage") from error
    except ValueError as error:
        raise UserError(f"{path}: no JSON ({error}); delete it and run the train stage again") from error


def model_of(record: Mapping[str, Any]) -> ModelConfig:
    """Return the model of a run.json."""
    return ModelConfig(**record["config"]["model"])


def run_row(folder: Path) -> Row:
    """Return a run's row; what a run in progress does not have yet is None."""
    record = read_record(folder)
    evaluation = next((row for row in _read(folder / "evaluation.csv") if row["predictor"] == "model"), {})
    metrics, validations = list(_read(folder / "metrics.csv")), list(_read(folder / "validation.csv"))
    last = metrics[-1] if metrics else {"step": 0, "tokens_seen": 0}
    best = min(validations, key=lambda row: float(row["loss_nats_per_token"]), default={})
    speeds = [float(row["tokens_per_second"]) for row in _read(folder / "throughput.csv")]
    return {
        "run": folder.name,
        "parameters": parameter_count(model_of(record)),
        "vocab_size": model_of(record).vocab_size,
        "steps": int(last["step"]),
        "tokens_seen": int(last["tokens_seen"]),
        "best_step": _number(best.get("step"), int),
        "validation_loss_nats_per_token": _number(evaluation.get("loss_nats_per_token")),
        "validation_bits_per_byte": _number(evaluation.get("bits_per_byte")),
        "next_token_accuracy": _number(evaluation.get("next_token_accuracy")),
        "median_tokens_per_second": statistics.median(speeds) if speeds else None,
        "device": record["device"],
        "code_sha256": record["code_sha256"][:HASH_DIGITS],
        "corpus": record["corpus"]["corpus"],
        "corpus_sha256": record["corpus"]["sha256"][:HASH_DIGITS],
    }


def run_rows(results: Path) -> list[Row]:
    """Return the rows of all runs in a results folder, by name."""
    return [run_row(path.parent) for path in sorted(results.glob("runs/*/run.json"))]


def differing(first: Path, second: Path) -> list[Row]:
    """Return a row for each config key, input and metric in which two runs differ."""
    sides = [{**_inputs(read_record(folder)), **_metrics(run_row(folder))} for folder in (first, second)]
    keys = list(dict.fromkeys([*sides[0], *sides[1]]))
    rows = []
    for key in keys:
        one, other = (side.get(key) for side in sides)
        if one != other:
            rows.append({"key": key, first.name: one, second.name: other, "change": _change(one, other)})
    return rows


def _inputs(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key.removeprefix("config."): value for key, value in leaves(record)}


def _metrics(row: Row) -> Row:
    return {key: value for key, value in row.items() if isinstance(value, (int, float)) or value is None}


def leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of everything in nested maps."""
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from leaves(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item


def _change(one: Any, other: Any) -> str | None:
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in (one, other))
    return f"{(other - one) / one:+.2%}" if numbers and one else None


def _read(path: Path) -> Iterator[dict[str, str]]:
    if path.exists():
        with open(path, newline="", encoding="utf-8") as file:
            yield from csv.DictReader(file)


def _number(text: str | None, kind: type = float) -> float | int | None:
    return kind(text) if text else None
