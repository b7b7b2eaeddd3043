"""Write results/summary.csv, which has one row for each run."""

from pathlib import Path

from hipgpt.base.files import replacing
from hipgpt.base.tables import table
from hipgpt.reports.pages import write_runs_page
from hipgpt.reports.runs import run_row


def summarize(folders: list[Path], path: Path, page: Path) -> None:
    """Write a row for each run, as CSV and as a page: its size, tokens seen, scores, speed and hashes."""
    rows = [run_row(folder) for folder in folders]
    with replacing(path) as file:
        file.write(table(rows, "csv").encode())
    write_runs_page(rows, folders, page)
