"""Rows as text: aligned for a terminal, or as CSV, Markdown or JSON."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from hipgpt.base.csv_file import csv_text

Row = Mapping[str, Any]
FORMATS = ("text", "csv", "md", "json")


def table(rows: Sequence[Row], form: str) -> str:
    """Return rows, all with the first one's keys, in one of FORMATS; None is an empty cell (JSON: null)."""
    return {"text": _text, "csv": _csv, "md": _markdown, "json": _json}[form](rows)


def cell(value: Any) -> str:
    """Return a value as people read it: at most 5 significant digits, commas between thousands."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.5g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _text(rows: Sequence[Row]) -> str:
    lines = [list(rows[0]), *([cell(value) for value in row.values()] for row in rows)] if rows else []
    numeric = [all(isinstance(value, (int, float, type(None))) for value in column) for column in _columns(rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    shaped = (
        [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        ]
        for line in lines
    )
    return "".join("  ".join(line).rstrip() + "\n" for line in shaped)


def _columns(rows: Sequence[Row]) -> list[tuple[Any, ...]]:
    return list(zip(*(row.values() for row in rows), strict=True))


def _csv(rows: Sequence[Row]) -> str:
    return csv_text(list(rows[0]), (list(row.values()) for row in rows)) if rows else ""


def _markdown(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    rules = ["---:" if isinstance(value, (int, float)) else "---" for value in rows[0].values()]
    lines = [list(rows[0]), rules, *([cell(v).replace("|", "\\|") for v in row.values()] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _json(rows: Sequence[Row]) -> str:
    return json.dumps(list(rows), indent=2) + "\n"
