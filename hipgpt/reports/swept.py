"""The settings in which runs differ, and results as means over seeds."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from hipgpt.base.nested import leaves
from hipgpt.reports.runs import HASH_DIGITS, Row

SEED = "training.seed"
MEASURES = ("validation_loss_nats_per_token", "validation_bits_per_byte", "next_token_accuracy")
MEAN_COLUMNS = ("runs", *(f"{name}_{kind}" for name in MEASURES for kind in ("mean", "standard_deviation")))


def swept_settings(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return for each run the settings in which the runs differ, by dotted key. records: run.json of each run.

    The learning rate comes first, because it is what one reads a sweep along; then the others in the order of the
    record, then the corpus. The tokenizer's hash is last, only if nothing else tells two tokenizers apart.
    """
    settings = [
        {key: value for key, value in leaves(record["config"]) if "." in key} | {"corpus": record["corpus"]["corpus"]}
        for record in records
    ]
    keys = list(dict.fromkeys(key for found in settings for key in found))
    swept = [key for key in keys if len({str(found.get(key)) for found in settings}) > 1]
    swept.sort(key=lambda key: (key == "corpus", "learning_rate" not in key))
    rows = [{key: found.get(key) for key in swept} for found in settings]
    tokenizers = [str(record.get("tokenizer_sha256"))[:HASH_DIGITS] for record in records]
    others = [str(without_seed(row)) for row in rows]
    if len(set(zip(others, tokenizers, strict=True))) > len(set(others)):
        rows = [{**row, "tokenizer_sha256": digits} for row, digits in zip(rows, tokenizers, strict=True)]
    return rows


def without_seed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings apart from the seed."""
    return {key: value for key, value in settings.items() if key != SEED}


def means_over_seeds(settings: Sequence[Mapping[str, Any]], rows: Sequence[Row]) -> list[Row]:
    """Return a row for each combination of settings apart from the seed, with MEAN_COLUMNS.

    settings: of swept_settings; rows: of run_row, one for each run. Of runs with the same settings and the same seed,
    which have the same results, the first counts. The standard deviation is that of a sample, None for one run.
    """
    groups: dict[str, list[int]] = {}
    first = {str(found): at for at, found in reversed(list(enumerate(settings)))}
    for at, found in enumerate(settings):
        if first[str(found)] != at:
            continue
        groups.setdefault(str(without_seed(found)), []).append(at)
    return [
        {**without_seed(settings[group[0]]), "runs": len(group), **_moments([rows[at] for at in group])}
        for group in groups.values()
    ]


def _moments(rows: Sequence[Row]) -> Row:
    found: Row = {}
    for name in MEASURES:
        values = [value for row in rows if isinstance(value := row[name], int | float)]
        found[f"{name}_mean"] = statistics.mean(values) if values else None
        found[f"{name}_standard_deviation"] = statistics.stdev(values) if len(values) > 1 else None
    return found
