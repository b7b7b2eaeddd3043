"""Write results/summary.csv, which has one row for each run."""

from pathlib import Path

from hipgpt.base.files import replacing
from hipgpt.base.tables import table
from hipgpt.reports.runs import read_record, run_row
from hipgpt.reports.swept import swept_settings


def summarize(folders: list[Path], path: Path) -> None:
    """Write a row for each run: its size, tokens seen, scores, speed, hashes, and the settings in which runs differ."""
    rows = [run_row(folder) for folder in folders]
    settings = swept_settings([read_record(folder) for folder in folders])
    with replacing(path) as file:
        file.write(table([row | found for row, found in zip(rows, settings, strict=True)], "csv").encode())
