"""Write results/summary.csv, which has one row for each run."""

from pathlib import Path
from typing import Any

from hipgpt.base.files import replacing
from hipgpt.base.tables import table
from hipgpt.reports.runs import Row, read_record, run_row
from hipgpt.reports.swept import swept_settings


def rows_of(folders: list[Path]) -> tuple[list[Row], list[dict[str, Any]]]:
    """Return the row of each run: its size, tokens seen, scores, speed and hashes; and the settings that differ."""
    return [run_row(folder) for folder in folders], swept_settings([read_record(folder) for folder in folders])


def summarize(folders: list[Path], path: Path) -> None:
    """Write a row for each run, which ends with the settings in which runs differ."""
    with replacing(path) as file:
        file.write(table([row | found for row, found in zip(*rows_of(folders), strict=True)], "csv").encode())
