"""Sweeps: lists of values in the config, which are expanded to runs with readable names."""

import dataclasses
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hipgpt.base.errors import UserError
from hipgpt.config.reading import load_config, without_empty_keys
from hipgpt.config.settings import RUN_KEYS, Config
from hipgpt.gpt.parameters import parameter_count

MOST_RUNS = 1024  # of a sweep: Snakemake plans more than ten jobs for each
Point = dict[str, Any]  # a value for each dotted key


def load_runs(config: Mapping[str, Any]) -> Config:
    """Return the checked config, with the runs of its sweeps among its runs. Raises UserError on the first mistake."""
    config = without_empty_keys(config)
    loaded = load_config(config)
    runs, sweeps = dict(config["runs"]), {}
    for name, sweep in config["sweep"].items():
        points = list(_points(name, sweep))
        overrides = dict(zip(_names(name, points), map(_nested, points), strict=True))
        if taken := sorted(overrides.keys() & (runs.keys() | {loaded.name})):
            raise UserError(f"config: sweep.{name}: makes a run named {taken[0]!r}, which exists; rename the sweep")
        if "tokens_per_parameter" in sweep:
            overrides = _with_steps({**config, "runs": overrides, "sweep": {}}, float(sweep["tokens_per_parameter"]))
        sweeps[name] = tuple(overrides)
        runs |= overrides
    if not sweeps:
        return loaded
    return dataclasses.replace(load_config({**config, "runs": runs}), sweeps=sweeps)


def _points(name: str, sweep: Mapping[str, Any]) -> Iterator[Point]:
    grid = "grid" in sweep
    lists: Mapping[str, Sequence[Any]] = sweep["grid" if grid else "zip"]
    for key in lists:
        if not isinstance(key, str) or key.split(".")[0] not in RUN_KEYS:
            raise UserError(
                f"config: sweep.{name}: got {key!r}, expected a dotted key of a run, such as model.embed_dim; "
                f"it begins with one of {', '.join(RUN_KEYS)}"
            )
    if both := [key for key in lists if any(other.startswith(f"{key}.") for other in lists)]:
        raise UserError(f"config: sweep.{name}: got {both[0]!r} and a key inside of it; remove one of them")
    lengths = {key: len(values) for key, values in lists.items()}
    if not grid and len(set(lengths.values())) > 1:
        raise UserError(
            f"config: sweep.{name}.zip: lists of lengths {lengths}, expected one length; grid combines them"
        )
    if (count := math.prod(lengths.values()) if grid else max(lengths.values())) > MOST_RUNS:
        raise UserError(
            f"config: sweep.{name}: makes {count:,} runs, expected at most {MOST_RUNS:,}; shorten its lists"
        )
    rows = itertools.product(*lists.values()) if grid else zip(*lists.values(), strict=True)
    return (dict(zip(lists, row, strict=True)) for row in rows)


def _names(sweep: str, points: Sequence[Point]) -> Iterator[str]:
    """Yield a name for each point. It has as many of the first keys as are needed to make all names different."""
    keys = list(points[0])
    for count in range(1, len(keys) + 1):
        names = ["_".join(f"{key.split('.')[-1]}-{_word(point[key])}" for key in keys[:count]) for point in points]
        if len(set(names)) == len(points):
            yield from (f"{sweep}_{name}" for name in names)
            return
    raise UserError(f"config: sweep.{sweep}: two of its points are the same, or have the same name; remove one")


def _word(value: Any) -> str:
    """Return a value in a form that fits into the name of a file."""
    try:
        text = f"{float(value):g}"  # YAML reads 1e-3 as a string
    except (TypeError, ValueError):
        text = str(value).lower()
    return "".join(character if re.fullmatch(r"[\w.-]", character, re.ASCII) else "-" for character in text)


def _nested(point: Point) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in point.items():
        *sections, last = key.split(".")
        inner = result
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[last] = value
    return result


def _with_steps(config: Mapping[str, Any], tokens_per_parameter: float) -> dict[str, Any]:
    """Return the overrides of the runs, with the training.steps that give each run this many tokens per parameter."""
    found, runs = {}, load_config(config).runs
    for name, overrides in config["runs"].items():
        run = runs[name]
        training = run.training
        tokens_per_step = training.batch_sequences * training.accumulation_steps * run.model.context_length
        tokens = tokens_per_parameter * parameter_count(run.model)
        if not math.isfinite(tokens):
            raise UserError(f"config: {name}: tokens_per_parameter: got {tokens_per_parameter}, expected fewer tokens")
        steps = math.ceil(tokens / tokens_per_step)
        found[name] = {**overrides, "training": {**overrides.get("training", {}), "steps": steps}}
    return found
