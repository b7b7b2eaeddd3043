"""Rows as text: aligned for a terminal, or as CSV, Markdown or JSON."""

import io
import json
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from hipgpt.base.csv_file import csv_text
from hipgpt.base.terminal import UNLIMITED, columns_of_stdout

Row = Mapping[str, Any]
SIGNIFICANT = 5  # digits
LARGEST_RATIO = 1000
FORMATS = ("text", "csv", "md", "json")
BETWEEN = 2  # columns of a terminal, from one cell to the next


def table(rows: Sequence[Row], form: str, columns: Sequence[str] = (), whole: bool = False) -> str:
    """Return rows, all with the first one's keys, in one of FORMATS; None is an empty cell (JSON: null).

    columns: these keys, which CSV and Markdown show without any row too.
    whole: never divide a cell of a text, even if the table is wider than the terminal.
    """
    columns = list(rows[0]) if rows else columns
    if form == "csv":
        return csv_text(columns, (list(row.values()) for row in rows)) if columns else ""
    if form == "md":
        return _markdown(rows, columns) if columns else ""
    return _text(rows, whole) if form == "text" else json.dumps(list(rows), indent=2) + "\n"


def cell(value: Any) -> str:
    """Return a value as people read it: at most SIGNIFICANT digits, commas between thousands."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:,.{SIGNIFICANT}g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def cells(rows: Sequence[Row]) -> list[dict[str, str]]:
    """Return the values of rows, all with the first one's keys, as people read them.

    The floats of a column have as many decimals as the one that needs most, so that their points are below each other;
    not if one is over LARGEST_RATIO times another, because then the small ones would show too few digits.
    """
    names = list(rows[0]) if rows else []
    columns = [_aligned([row[name] for row in rows]) for name in names]
    return [dict(zip(names, found, strict=True)) for found in zip(*columns, strict=True)]


def _aligned(values: Sequence[Any]) -> list[str]:
    shown = [cell(value) for value in values]
    sizes = [abs(value) for value in values if isinstance(value, float) and value]
    numbers = [text for text, value in zip(shown, values, strict=True) if isinstance(value, float)]
    if not sizes or "e" in "".join(numbers) or not max(sizes) <= LARGEST_RATIO * min(sizes) < math.inf:
        return shown
    most = max(0, SIGNIFICANT - 1 - math.floor(math.log10(max(sizes))))
    decimals = min(most, max(len(text.partition(".")[2]) for text in numbers))
    return [
        f"{value:,.{decimals}f}" if isinstance(value, float) else text
        for text, value in zip(shown, values, strict=True)
    ]


def fitting(rows: Sequence[Row], needed: Collection[str]) -> list[str]:
    """Return the columns of a table of text that stdout has room for: without the last of those that are not needed."""
    widths = {name: max(len(str(name)), *(len(cell(row[name])) for row in rows)) for name in rows[0]}
    names = [*widths]
    for name in reversed(widths):
        if sum(widths[name] + BETWEEN for name in names) - BETWEEN <= columns_of_stdout():
            break
        if name not in needed:
            names.remove(name)
    return names


def _text(rows: Sequence[Row], whole: bool) -> str:
    """Return aligned columns. On a terminal, cells of a table that is too wide continue on further lines."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not rows:
        return ""
    shown = Table(box=None, pad_edge=False, padding=(0, BETWEEN, 0, 0), collapse_padding=True)
    for name, values in zip(rows[0], _columns(rows), strict=True):
        numeric = all(isinstance(value, (int, float, type(None))) for value in values)
        shown.add_column(Text(name), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(Text(cell(value)) for value in row.values()))
    width = UNLIMITED if whole else columns_of_stdout()
    console = Console(file=io.StringIO(), width=width, color_system=None)
    with console.capture() as capture:
        console.print(shown)
    return "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())


def _columns(rows: Sequence[Row]) -> list[tuple[Any, ...]]:
    return list(zip(*(row.values() for row in rows), strict=True))


def _markdown(rows: Sequence[Row], columns: Sequence[str]) -> str:
    first = rows[0] if rows else {}
    rules = ["---:" if isinstance(first.get(column), (int, float)) else "---" for column in columns]
    lines = [columns, rules, *([cell(v).replace("|", "\\|") for v in row.values()] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
