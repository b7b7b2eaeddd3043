"""CSV files: written whole or row by row, and read with their columns checked."""

import csv
import io
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hipgpt.base.errors import UserError
from hipgpt.base.files import append, replacing


def csv_text(header: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    """Return a CSV's text. Floats get 7 significant digits, which tell f32 values apart; None is an empty cell."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    for row in itertools.chain([header], rows):
        writer.writerow([f"{v:.7g}" if isinstance(v, (float, np.floating)) else v for v in row])
    return stream.getvalue()


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file, whole or not at all."""
    with replacing(path) as file:
        file.write(csv_text(header, rows).encode())


def read_csv(path: Path, kinds: Mapping[str, Callable[[str], Any]], remedy: str) -> list[dict[str, Any]]:
    """Return the rows of a CSV file, restricted to the columns of `kinds`.

    kinds: the function that converts a cell, by column. An empty cell is None; an absent file has no rows; a row that
    is still being written is left out. Raises UserError, with the remedy, if the file is damaged.
    """
    if not path.exists():
        return []
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if None not in row.values()]
        return [{name: kind(row[name]) if row[name] else None for name, kind in kinds.items()} for row in rows]
    except (ValueError, KeyError, csv.Error) as error:
        expected = f"expected columns {', '.join(kinds)} and numbers in them"
        raise UserError(f"{path}: damaged ({error}), {expected}; delete it and {remedy}") from error


class CsvFile:
    """A CSV file that grows, one row for each observation. A row is in the file when its append returns."""

    def __init__(self, path: Path, columns: Sequence[str]):
        self.path, self.columns = path, tuple(columns)

    def begin(self) -> None:
        """Replace the file by one that holds the header only."""
        write_csv(self.path, self.columns, [])

    def append(self, *values: float | int | str) -> None:
        """Add a row. Raises ValueError unless there is one value for each column."""
        if len(values) != len(self.columns):
            raise ValueError(f"{self.path}: got {len(values)} values, expected {len(self.columns)}")
        append(self.path, csv_text(values, []))
