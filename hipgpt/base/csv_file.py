"""CSV files that grow row by row."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hipgpt.base.files import append, replacing


class CsvFile:
    """A CSV file with a header, one row one observation; every append is in the file when it returns.

    Floats are written with 7 significant digits, which f32 values need to be told apart at their own precision.
    """

    def __init__(self, path: Path, columns: Sequence[str]):
        self.path, self.columns = path, tuple(columns)

    def begin(self) -> None:
        """Start the file anew with its header."""
        with replacing(self.path) as file:
            file.write((",".join(self.columns) + "\n").encode())

    def append(self, *values: float | int | str) -> None:
        """Add a row. Raises ValueError if it has not one value for each column."""
        if len(values) != len(self.columns):
            raise ValueError(f"{self.path}: got {len(values)} values, expected {len(self.columns)}")
        append(self.path, ",".join(_cell(value) for value in values) + "\n")


def _cell(value: float | int | str) -> str:
    return f"{value:.7g}" if isinstance(value, (float, np.floating)) else str(value)
