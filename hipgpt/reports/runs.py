"""Read the folder of a run: its row in the table of runs, and its differences from another run."""

import dataclasses
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hipgpt.base.csv_file import read_csv
from hipgpt.base.errors import UserError
from hipgpt.base.json_files import read_json
from hipgpt.base.nested import leaves
from hipgpt.config.settings import ModelConfig
from hipgpt.config.stated import model_from, optional
from hipgpt.gpt.parameters import parameter_count

RETRAIN, RERUN = "run the train stage again", "run snakemake again"
HASH_DIGITS = 12  # of a SHA-256 in a table; run.json has all of them
MOST_LAYERS = 1 << 16  # so many layers are counted one by one in about a second
MODEL = {f.name: f.type for f in dataclasses.fields(ModelConfig) if f.name not in optional(ModelConfig)}
# the fields and columns that are read from the files of a run, with their types
RECORD = {
    "config": {"model": MODEL, "training": {"precision": str}},
    "device": str,
    "code_sha256": str,
    "corpus": {"corpus": str, "sha256": str},
}
EVALUATION = {
    "predictor": str,
    "loss_nats_per_token": float,
    "perplexity": float,
    "bits_per_byte": float,
    "next_token_accuracy": float,
    "top5_accuracy": float,
    "tokens": int,
    "bytes": int,
}
METRICS = {"step": int, "tokens_seen": int}
VALIDATION = {"step": int, "loss_nats_per_token": float}
THROUGHPUT = {"tokens_per_second": float}
# the results of two runs of which the difference in per cent says something, unlike that of settings
COMPARED = {
    "parameters",
    "steps",
    "tokens_seen",
    "validation_loss_nats_per_token",
    "validation_bits_per_byte",
    "next_token_accuracy",
    "median_tokens_per_second",
}

Row = dict[str, str | int | float | None]


def read_record(folder: Path) -> dict[str, Any]:
    """Return run.json. Raises UserError if it is absent or damaged."""
    path = folder / "run.json"
    record: dict[str, Any] = read_json(path, RECORD, RETRAIN)
    try:
        layers = model_of(record).num_layers
    except ValueError as error:
        raise UserError(f"{path}: config.{error}; delete it and {RETRAIN}") from error
    if layers > MOST_LAYERS:
        raise UserError(f"{path}: config.model.num_layers: got {layers}, expected at most {MOST_LAYERS}; delete it")
    return record


def model_of(record: Mapping[str, Any]) -> ModelConfig:
    """Return the model of a run.json. Raises ValueError if it states none."""
    known = {field.name for field in dataclasses.fields(ModelConfig)}  # model.from is stated next to them
    return model_from({key: value for key, value in record["config"]["model"].items() if key in known})


def run_row(folder: Path) -> Row:
    """Return the row of a run. Values that an unfinished run lacks are None. Raises UserError if a file is damaged."""
    record = read_record(folder)
    evaluation = next(
        (row for row in read_csv(folder / "evaluation.csv", EVALUATION, RERUN) if row["predictor"] == "model"), {}
    )
    metrics, validations = (
        read_csv(folder / "metrics.csv", METRICS, RERUN),
        read_csv(folder / "validation.csv", VALIDATION, RERUN),
    )
    last = metrics[-1] if metrics else {"step": 0, "tokens_seen": 0}
    best = min(validations, key=lambda row: row["loss_nats_per_token"], default={})
    speeds = [row["tokens_per_second"] for row in read_csv(folder / "throughput.csv", THROUGHPUT, RERUN)]
    return {
        "run": folder.name,
        "parameters": parameter_count(model_of(record)),
        "vocab_size": model_of(record).vocab_size,
        "steps": last["step"],
        "tokens_seen": last["tokens_seen"],
        "best_step": best.get("step"),
        "validation_loss_nats_per_token": evaluation.get("loss_nats_per_token"),
        "validation_bits_per_byte": evaluation.get("bits_per_byte"),
        "next_token_accuracy": evaluation.get("next_token_accuracy"),
        "median_tokens_per_second": statistics.median(speeds) if speeds else None,
        "device": record["device"],
        "code_sha256": record["code_sha256"][:HASH_DIGITS],
        "corpus": record["corpus"]["corpus"],
        "corpus_sha256": record["corpus"]["sha256"][:HASH_DIGITS],
    }


def run_folders(results: Path) -> dict[str, Path]:
    """Return the folders of all runs in a results folder, finished or not, by their names in order."""
    return {path.parent.name: path.parent for path in sorted(results.glob("runs/*/run.json"))}


def differing(first: Path, second: Path) -> list[Row]:
    """Return a row for each config key, input and metric in which two runs differ.

    change: the difference between two results, in per cent of the first; None without two numbers, and for inputs.
    """
    sides = [{**_inputs(read_record(folder)), **_metrics(run_row(folder))} for folder in (first, second)]
    keys = list(dict.fromkeys([*sides[0], *sides[1]]))
    rows = []
    for key in keys:
        one, other = (side.get(key) for side in sides)
        if one != other:
            rows.append(
                {
                    "key": key,
                    first.name: one,
                    second.name: other,
                    "change": _change(one, other) if key in COMPARED else None,
                }
            )
    return rows


def _inputs(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key.removeprefix("config."): value for key, value in leaves(record)}


def _metrics(row: Row) -> Row:
    return {key: value for key, value in row.items() if isinstance(value, (int, float)) or value is None}


def _change(one: float | None, other: float | None) -> float | None:
    return 100 * (other - one) / one if one and other is not None else None
