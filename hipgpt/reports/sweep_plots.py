"""Figures of the settings of a sweep: the loss by a setting with a line for each value of another, and all at once."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hipgpt.base.nested import leaves
from hipgpt.reports.plots import save

LOSS = "validation_loss_nats_per_token"
LOGARITHMIC_FROM = 3  # a setting whose largest value is so many times its smallest gets a logarithmic axis
Point = Mapping[str, Any]  # a value for each swept setting, and the loss


def swept_points(records: Sequence[Mapping[str, Any]], losses: Sequence[float]) -> list[dict[str, Any]]:
    """Return a point for each run: the settings in which the runs differ, without the section's name, and the loss.

    records: run.json of each run; losses: of its evaluation. The learning rate comes first, because it is what one
    reads a sweep along; then the others in the order of the record.
    """
    settings = [dict(leaves({key: record["config"][key] for key in ("model", "training")})) for record in records]
    keys = list(dict.fromkeys(key for found in settings for key in found))
    swept = [key for key in keys if len({str(found.get(key)) for found in settings}) > 1]
    swept.sort(key=lambda key: "learning_rate" not in key)
    names = {key: key.split(".")[-1] for key in swept}
    return [
        {**{names[key]: found.get(key) for key in swept}, LOSS: loss}
        for found, loss in zip(settings, losses, strict=True)
    ]


def plot_settings(points: Sequence[Point], picture: Path) -> None:
    """Draw the loss by the first setting with a line for each value of the second, and next to it as a heat map."""
    keys = [key for key in points[0] if key != LOSS]
    first, second = (keys + [None, None])[:2]
    figure, panels = plt.subplots(1, 2 if second else 1, figsize=(11 if second else 7, 4), layout="constrained")
    axes = panels[0] if second else panels
    axes.set(title="validation loss by setting", xlabel=first or "", ylabel="loss, nats per token")
    axes.spines[["top", "right"]].set_visible(False)
    if first is None:  # the runs differ in nothing that the record has
        save(figure, picture)
        return
    columns, rows = _values(points, first), _values(points, second) if second else [None]
    table = _table(points, first, columns, second, rows)
    _place_ticks(axes, columns)
    for number, value in enumerate(rows):
        color = plt.cm.viridis(number / max(1, len(rows) - 1) * 0.85)
        label = f"{second} {_short(value)}" if second else None
        axes.plot(_places(columns), table[number], "o-", markersize=4, color=color, label=label)
    if second:
        axes.legend(frameon=False, fontsize="small")
        _heat_map(figure, panels[1], table, (first, columns), (second, rows))
    save(figure, picture)


def plot_parallel(points: Sequence[Point], picture: Path) -> None:
    """Draw each run as a line through its settings to its loss (parallel coordinates), darker for a lower loss."""
    keys = list(points[0])
    figure, axes = plt.subplots(figsize=(max(6, 2.2 * len(keys)), 4), layout="constrained")
    order = np.argsort([-point[LOSS] for point in points])  # the best is drawn last
    heights = {key: _heights([point[key] for point in points]) for key in keys}
    for rank, at in enumerate(order):
        color = plt.cm.viridis_r(rank / max(1, len(points) - 1))
        axes.plot(range(len(keys)), [heights[key][at] for key in keys], color=color, alpha=0.8)
    for place, key in enumerate(keys):
        axes.axvline(place, color="#64748b", linewidth=0.8)
        ends = sorted({(height, points[at][key]) for at, height in enumerate(heights[key])}, key=lambda pair: pair[0])
        shown = ends if len(ends) <= 6 and key != LOSS else [ends[0], ends[-1]]
        for height, value in shown:
            axes.annotate(_short(value), (place, height), xytext=(4, 0), textcoords="offset points", fontsize=8)
    axes.set_xticks(range(len(keys)), ["loss, nats" if key == LOSS else key for key in keys], fontsize=8)
    axes.set(title="settings and loss of each run", yticks=[])
    axes.spines[:].set_visible(False)
    save(figure, picture)


def _values(points: Sequence[Point], key: str) -> list[Any]:
    found = {point[key] for point in points}
    return sorted(found, key=lambda value: (isinstance(value, str), value if value is not None else 0))


def _table(points: Sequence[Point], first: str, columns: list[Any], second: str | None, rows: list[Any]) -> Any:
    """Return the lowest loss (rows, columns) of the runs with two values, NaN if there is none."""
    table = np.full((len(rows), len(columns)), np.nan)
    for point in points:
        row, column = rows.index(point[second]) if second else 0, columns.index(point[first])
        table[row, column] = np.nanmin([table[row, column], point[LOSS]])
    return table


def _numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _places(values: list[Any]) -> list[Any]:
    return values if _numbers(values) else list(range(len(values)))


def _place_ticks(axes: Axes, values: list[Any]) -> None:
    if _numbers(values) and min(values) > 0 and max(values) >= LOGARITHMIC_FROM * min(values):
        axes.set_xscale("log")
    axes.set_xticks(_places(values), [_short(value) for value in values])
    axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())


def _heat_map(
    figure: Figure, axes: Axes, table: Any, across: tuple[str, list[Any]], down: tuple[str, list[Any]]
) -> None:
    picture = axes.imshow(table, aspect="auto", cmap="viridis_r", origin="lower")
    middle = (np.nanmin(table) + np.nanmax(table)) / 2
    for (row, column), loss in np.ndenumerate(table):
        if np.isfinite(loss):
            color = "white" if loss > middle else "black"  # dark cells have a high loss
            axes.text(column, row, f"{loss:.3f}", ha="center", va="center", color=color, fontsize=9)
    axes.set_xticks(range(len(across[1])), [_short(value) for value in across[1]])
    axes.set_yticks(range(len(down[1])), [_short(value) for value in down[1]])
    axes.set(title="validation loss, nats per token", xlabel=across[0], ylabel=down[0])
    figure.colorbar(picture, ax=axes)


def _heights(values: Sequence[Any]) -> list[float]:
    """Return the heights of values between 0 and 1, in logarithms if they are far apart, by order if they are texts."""
    distinct = _values([{"value": value} for value in values], "value")
    scaled = [float(place) for place in _places(distinct)]
    if _numbers(distinct) and min(scaled) > 0 and max(scaled) >= LOGARITHMIC_FROM * min(scaled):
        scaled = [float(np.log(place)) for place in scaled]
    low, high = min(scaled), max(scaled)
    by_value = {value: (place - low) / ((high - low) or 1) for value, place in zip(distinct, scaled, strict=True)}
    return [by_value[value] for value in values]


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
