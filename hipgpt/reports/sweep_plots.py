"""Figures of the settings of a sweep: the loss by a setting with a line for each value of another, and all at once."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hipgpt.reports.plots import axes_of, save

LOSS, SPREAD = "validation_loss_nats_per_token", "standard deviation"
LOGARITHMIC_FROM = 3  # a setting whose largest value is so many times its smallest gets a logarithmic axis
MOST_NAMED = 20  # lines in a legend; more would leave no room for the figure
Point = Mapping[str, Any]  # a value for each swept setting, and the loss


def swept_points(settings: Sequence[Mapping[str, Any]], losses: Sequence[float]) -> list[dict[str, Any]]:
    """Return a point for each run: its settings of swept_settings, without the section's name, and its loss."""
    return [
        {**{key.split(".")[-1]: value for key, value in found.items()}, LOSS: loss}
        for found, loss in zip(settings, losses, strict=True)
    ]


def combinations(points: Sequence[Point]) -> list[list[int]]:
    """Return the indices of the points that differ in nothing but the seed, together.

    If the seed is the only setting, each point is alone.
    """
    groups: dict[str, list[int]] = {}
    for at, point in enumerate(points):
        groups.setdefault(str([point[key] for key in _axes_of(points)]), []).append(at)
    return [*groups.values()] if _axes_of(points) else [[at] for at in range(len(points))]


def mean_points(points: Sequence[Point]) -> list[dict[str, Any]]:
    """Return a point for each combination: the mean of the losses of its seeds, and their standard deviation."""
    return [
        {
            **{key: points[group[0]][key] for key in _axes_of(points)},
            LOSS: float(np.mean([points[at][LOSS] for at in group])),
            SPREAD: float(np.std([points[at][LOSS] for at in group], ddof=1)) if len(group) > 1 else 0.0,
        }
        for group in combinations(points)
    ]


def _axes_of(points: Sequence[Point]) -> list[str]:
    """Return the settings that get an axis: the seed only if it is the only one."""
    keys = [key for key in points[0] if key != LOSS]
    return [key for key in keys if key != "seed"] or keys


def plot_curves(points: Sequence[Point], validations: Sequence[pd.DataFrame], picture: Path) -> None:
    """Draw the validation loss over the tokens seen: a line for each combination, the mean of its seeds.

    validations: validation.csv of each point's run. The band is one standard deviation of the seeds.
    """
    figure, axes = axes_of("validation loss during training", "tokens seen", "loss, nats per token")
    figure.set_size_inches(9, 4.5)
    groups, means = combinations(points), mean_points(points)
    order = sorted(range(len(groups)), key=lambda at: means[at][LOSS])
    for rank, at in enumerate(order):
        losses = pd.concat([validations[run] for run in groups[at]]).groupby("tokens_seen").loss_nats_per_token
        mean, spread = losses.mean(), losses.std()
        label = ", ".join(_short(means[at][key]) for key in _axes_of(points)) or None
        (line,) = axes.plot(mean.index, mean, "o-", markersize=3, color=_color(rank, len(order)), label=label)
        axes.fill_between(mean.index, mean - spread, mean + spread, color=line.get_color(), alpha=0.2, linewidth=0)
    logarithmic(axes)
    means_of = " (mean of seeds)" if len(groups) < len(points) else ""
    _legend(figure, axes, f"{', '.join(_axes_of(points))}{means_of}")
    save(figure, picture)


def plot_settings(points: Sequence[Point], picture: Path) -> None:
    """Draw the loss by the first setting with a line for each value of the second, and next to it as a heat map.

    The losses are means over seeds; bars are one standard deviation.
    """
    points, keys = mean_points(points), _axes_of(points)
    first, second = (keys + [None, None])[:2]
    figure, panels = plt.subplots(1, 2 if second else 1, figsize=(11 if second else 7, 4), layout="constrained")
    axes = panels[0] if second else panels
    axes.set(title="validation loss by setting", xlabel=first or "", ylabel="loss, nats per token")
    axes.spines[["top", "right"]].set_visible(False)
    if first is None:  # the runs differ in nothing that the record has
        save(figure, picture)
        return
    columns, rows = _values(points, first), _values(points, second) if second else [None]
    table, spreads = _table(points, first, columns, second, rows)
    _place_ticks(axes, columns)
    for number, value in enumerate(rows):
        color = plt.cm.viridis(number / max(1, len(rows) - 1) * 0.85)
        label = f"{second} {_short(value)}" if second else None
        axes.plot(_places(columns), table[number], "o-", markersize=4, color=color, label=label)
        if spreads[number].any():
            axes.errorbar(_places(columns), table[number], spreads[number], fmt="none", ecolor=color, capsize=3)
    if spreads.any():
        axes.set_title("validation loss by setting, mean and standard deviation of seeds")
    if second:
        axes.legend(frameon=False, fontsize="small")
        _heat_map(figure, panels[1], table, (first, columns), (second, rows))
    save(figure, picture)


def plot_parallel(points: Sequence[Point], names: Sequence[str], picture: Path) -> None:
    """Draw each run as a line through its settings to its loss (parallel coordinates), darker for a lower loss.

    names: of the runs, for the legend, the best first.
    """
    keys = list(points[0])
    figure, axes = plt.subplots(figsize=(max(6, 2.2 * len(keys)) + 3, 4.5), layout="constrained")
    order = sorted(range(len(points)), key=lambda at: points[at][LOSS])
    heights = {key: _heights([point[key] for point in points]) for key in keys}
    for rank, at in enumerate(order):
        path, color = [heights[key][at] for key in keys], _color(rank, len(order))
        axes.plot(range(len(keys)), path, color=color, alpha=0.8, zorder=2 - rank / len(order), label=names[at])
    for place, key in enumerate(keys):
        axes.axvline(place, color="#64748b", linewidth=0.8)
        ends = sorted({(height, points[at][key]) for at, height in enumerate(heights[key])}, key=lambda pair: pair[0])
        shown = ends if len(ends) <= 6 and key != LOSS else [ends[0], ends[-1]]
        for height, value in shown:
            # on a ground of its own, because the lines of the runs cross it
            ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
            axes.annotate(
                _short(value),
                (place, height),
                xytext=(5, 0),
                textcoords="offset points",
                fontsize=8,
                va="center",
                bbox=ground,
            )
    axes.set_xticks(range(len(keys)), ["loss, nats" if key == LOSS else key for key in keys], fontsize=8)
    axes.set(title="settings and loss of each run", yticks=[])
    axes.spines[:].set_visible(False)
    _legend(figure, axes, "run")
    save(figure, picture)


def logarithmic(axes: Axes) -> None:
    """Make the x axis logarithmic, with ticks such as 20k."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(matplotlib.ticker.EngFormatter(sep=""))
    axes.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())


def _color(rank: int, count: int) -> Any:
    """Return the color of a line: dark for the best, which has rank 0."""
    return plt.cm.viridis(rank / max(1, count - 1) * 0.9)


def _legend(figure: Figure, axes: Axes, title: str) -> None:
    """Write the names of the lines, which are drawn the best first, to the right of the axes."""
    handles, labels = axes.get_legend_handles_labels()
    if not labels:
        return
    order = "the best first" if len(labels) <= MOST_NAMED else f"the best {MOST_NAMED} of {len(labels)}"
    figure.legend(
        handles[:MOST_NAMED], labels[:MOST_NAMED], loc="outside right upper", title=f"{title}:\n{order}",
        frameon=False, fontsize="small", title_fontsize="small", alignment="left",
    )  # fmt: skip


def _values(points: Sequence[Point], key: str) -> list[Any]:
    found = {point[key] for point in points}
    return sorted(found, key=lambda value: (isinstance(value, str), value if value is not None else 0))


def _table(points: Sequence[Point], first: str, columns: list[Any], second: str | None, rows: list[Any]) -> Any:
    """Return the lowest loss (rows, columns) of the points with two values, NaN if there is none, and its spread."""
    table, spreads = np.full((2, len(rows), len(columns)), np.nan)
    for point in sorted(points, key=lambda point: -point[LOSS]):
        at = rows.index(point[second]) if second else 0, columns.index(point[first])
        table[at], spreads[at] = point[LOSS], point[SPREAD]
    return table, np.nan_to_num(spreads)


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
