"""Charts of pages: what templates/chart.js draws, as values for JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

MOST_POINTS = 2000  # of a line; a screen shows no more
DIGITS = 5


def chart(
    title: str,
    caption: str,
    x: str,
    y: str,
    lines: Sequence[Mapping[str, Any]],
    log_x: bool = False,
    log_y: bool = False,
) -> dict[str, Any]:
    """Return a chart. x, y: the labels of its axes; lines: see `line`; log_x, log_y: how it looks at first."""
    names = {"title": title, "caption": caption, "x": x, "y": y}
    return {**names, "lines": list(lines), "log_x": log_x, "log_y": log_y}


def line(name: str, rows: Sequence[Mapping[str, Any]], x: str, y: str, faint: bool = False) -> dict[str, Any]:
    """Return a line through rows. x, y: columns; of more than MOST_POINTS rows, means of neighbours are drawn."""
    found = [(row[x], row[y]) for row in rows if row[x] is not None and row[y] is not None]
    group = -(-len(found) // MOST_POINTS) or 1
    groups = [found[first : first + group] for first in range(0, len(found), group)]
    points = [[*part[0]] if group == 1 else _mean(part) for part in groups]
    return {"name": name, "points": [[px, float(f"{py:.{DIGITS}g}")] for px, py in points], "faint": faint}


def _mean(points: Sequence[tuple[float, float]]) -> list[float]:
    return [sum(column) / len(points) for column in zip(*points, strict=True)]
