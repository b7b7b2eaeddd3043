"""Rows as text: aligned for a terminal, or as CSV, Markdown or JSON."""

import io
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from hipgpt.base.csv_file import csv_text

Row = Mapping[str, Any]
UNLIMITED = 100_000  # columns of a file or a pipe
FORMATS = ("text", "csv", "md", "json")


def table(rows: Sequence[Row], form: str, columns: Sequence[str] = ()) -> str:
    """Return rows, all with the first one's keys, in one of FORMATS; None is an empty cell (JSON: null).

    columns: these keys, which CSV and Markdown show without any row too.
    """
    columns = list(rows[0]) if rows else columns
    if form == "csv":
        return csv_text(columns, (list(row.values()) for row in rows)) if columns else ""
    if form == "md":
        return _markdown(rows, columns) if columns else ""
    return _text(rows) if form == "text" else json.dumps(list(rows), indent=2) + "\n"


def cell(value: Any) -> str:
    """Return a value as people read it: at most 5 significant digits, commas between thousands."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:,.5g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _text(rows: Sequence[Row]) -> str:
    """Return aligned columns. On a terminal, cells of a table that is too wide continue on further lines."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not rows:
        return ""
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), collapse_padding=True)
    for name, values in zip(rows[0], _columns(rows), strict=True):
        numeric = all(isinstance(value, (int, float, type(None))) for value in values)
        shown.add_column(Text(name), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(Text(cell(value)) for value in row.values()))
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else UNLIMITED
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
