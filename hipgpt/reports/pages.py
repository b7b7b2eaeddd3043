"""The page of a run and the page of all runs: one HTML file each, with its curves and tables inside."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hipgpt.base.csv_file import read_csv
from hipgpt.base.json_files import read_json
from hipgpt.base.nested import leaves
from hipgpt.base.tables import cells
from hipgpt.reports.charts import chart, line
from hipgpt.reports.page_size import fits_a_page
from hipgpt.reports.rendering import write_page
from hipgpt.reports.runs import COMPARED, EVALUATION, RERUN, Row, model_of, read_record, run_row
from hipgpt.reports.swept import MEASURES

INSPECTION = {"passage": [list], "sentence": [str], "heads": [int], "attention": str, "words": [list]}
METRICS = {"step": int, "loss_nats_per_token": float, "gradient_norm": float, "learning_rate": float}
VALIDATION = {"step": int, "tokens_seen": int, "loss_nats_per_token": float}
THROUGHPUT = {"step": int, "tokens_per_second": float}
TASKS = {
    "task": str,
    "questions": int,
    "accuracy": float,
    "accuracy_standard_error": float,
    "accuracy_normalized": float,
    "accuracy_normalized_standard_error": float,
}
PICTURES = ("loss", "learning_rate", "throughput")
HIGHEST_NATS = 10.0  # of the scale of colours: a token with a probability of 1 in 22,000
LOSSES = ("validation_bits_per_byte", "validation_loss_nats_per_token")
FIGURES = {  # of the run's row, with their unit
    "validation_bits_per_byte": ("Bits per byte", "whole validation split, best checkpoint"),
    "validation_loss_nats_per_token": ("Loss, nats per token", "whole validation split, best checkpoint"),
    "next_token_accuracy": ("Next token right", "of the whole validation split"),
    "parameters": ("Parameters", "trained"),
    "tokens_seen": ("Tokens seen", "in training"),
    "median_tokens_per_second": ("Speed", "tokens per second, median"),
}


def write_run_page(folder: Path, page: Path, tasks: Path | None = None) -> None:
    """Write the page of a run from the files in its folder. tasks: its tasks.csv."""
    record, row = read_record(folder), run_row(folder)
    inspection = read_json(folder / "inspection.json", INSPECTION, RERUN)
    provenance = {key: value for key, value in leaves(record) if not key.startswith("config.")}
    settings = {key.removeprefix("config."): value for key, value in leaves(record) if key.startswith("config.")}
    layers, heads = inspection["heads"]
    write_page(
        page,
        "run.html",
        title=f"Run {folder.name}",
        about=f"A {model_of(record).parts.title} trained on {record['corpus']['corpus']}, on {record['device']}.",
        has_playground=fits_a_page(model_of(record)),
        figures=[{"name": name, "value": _figure(key, row), "unit": unit} for key, (name, unit) in FIGURES.items()],
        charts=_charts(folder),
        pictures=PICTURES,
        evaluation=read_csv(folder / "evaluation.csv", EVALUATION, RERUN),
        tasks=read_csv(tasks, TASKS, RERUN) if tasks else [],
        passage=[_coloured(*token) for token in inspection["passage"]],
        highest_nats=HIGHEST_NATS,
        attention={
            "tokens": inspection["sentence"], "layers": layers, "heads": heads, "shares": inspection["attention"]
        },
        words=inspection["words"],
        samples=(folder / "samples.txt").read_text(encoding="utf-8"),
        training_samples=(folder / "training_samples.txt").read_text(encoding="utf-8"),
        provenance=provenance,
        settings=settings,
    )  # fmt: skip


def write_runs_page(rows: Sequence[Row], folders: Sequence[Path], page: Path, means: Sequence[Row] = ()) -> None:
    """Write the page of all runs.

    rows: one for each run; folders: of the runs whose curves are drawn; means: rows of means_over_seeds.
    """
    curves = [
        line(folder.name, _read(folder, "validation", VALIDATION), "tokens_seen", "loss_nats_per_token")
        for folder in folders
    ]
    columns, shared = _columns(rows)
    numeric = {name for row in rows for name, value in row.items() if isinstance(value, int | float)}
    write_page(
        page,
        "runs.html",
        title="All runs",
        rows=rows,
        shown=cells(rows),
        columns=columns,
        shared=shared,
        numeric=numeric,
        means=means,
        curves=chart("", "", "tokens seen", "loss, nats per token", curves, log_x=True),
    )


def _columns(rows: Sequence[Row]) -> tuple[list[str], Row]:
    """Return the columns of the table of runs, and the values by name that are said once, because all runs share them.

    So the table fits a screen. Results stay columns; of a single run all numbers that are compared do.
    """
    stay = {"run", *(MEASURES if len(rows) > 1 else COMPARED)}
    first = rows[0]
    shared: Row = {
        name: value
        for name, value in first.items()
        if name not in stay and value is not None and all(row[name] == value for row in rows)
    }
    return [name for name in first if name not in shared], shared


def _read(folder: Path, name: str, kinds: Mapping[str, Any]) -> list[dict[str, Any]]:
    return read_csv(folder / f"{name}.csv", kinds, RERUN)


def _charts(folder: Path) -> list[dict[str, Any]]:
    metrics, validation = _read(folder, "metrics", METRICS), _read(folder, "validation", VALIDATION)
    speed = _read(folder, "throughput", THROUGHPUT)
    loss, nats = "loss_nats_per_token", "loss, nats per token"
    return [
        chart(
            "Loss",
            "If the two diverge, the model begins to memorize its training text.",
            "step",
            nats,
            [line("training batches", metrics, "step", loss, faint=True),
             line("validation sample", validation, "step", loss)],
        ),
        chart(
            "Gradient norm",
            "Before clipping. If it grows or has spikes, a lower rate is better.",
            "step",
            "gradient norm",
            [line("gradient norm", metrics, "step", "gradient_norm")],
            log_y=True,
        ),
        chart("Learning rate", "", "step", "learning rate", [line("learning rate", metrics, "step", "learning_rate")]),
        chart(
            "Throughput",
            "Between two rows of throughput.csv. Other jobs on the same processor cause dips.",
            "step",
            "tokens per second",
            [line("tokens per second", speed, "step", "tokens_per_second")],
        ),
    ]  # fmt: skip


def _figure(key: str, row: Row) -> Any:
    """Return a figure of the page: a share in percent, a loss with three decimals, by which runs compare."""
    value = row[key]
    if not isinstance(value, float):
        return value
    if key == "next_token_accuracy":
        return f"{100 * value:.1f} %"
    return f"{value:.3f}" if key in LOSSES else value


def _coloured(text: str, nats: float | None) -> tuple[str, str, str]:
    """Return a token's text, the strength of its colour from 0 to 1, and a text about its loss."""
    if nats is None:
        return text, "0", "not predicted: the first token"
    return text, f"{min(nats / HIGHEST_NATS, 1):.2f}", f"{nats:.2f} nats, probability {math.exp(-nats):.2g}"
