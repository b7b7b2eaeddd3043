"""results/summary.csv: one row a run."""

from pathlib import Path

from hipgpt.files import replacing
from hipgpt.runs import run_row
from hipgpt.tables import table


def summarize(folders: list[Path], path: Path) -> None:
    """Write a row for each run's folder: its size, what it has seen, what it reaches, how fast, and what it is from."""
    with replacing(path) as file:
        file.write(table([run_row(folder) for folder in folders], "csv").encode())
