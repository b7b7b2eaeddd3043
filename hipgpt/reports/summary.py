"""Write results/summary.csv, which has one row for each run."""

from pathlib import Path

from hipgpt.base.files import replacing
from hipgpt.base.tables import table
from hipgpt.reports.pages import write_runs_page
from hipgpt.reports.runs import read_record, run_row
from hipgpt.reports.swept import SEED, means_over_seeds, swept_settings


def summarize(folders: list[Path], path: Path, page: Path) -> None:
    """Write a row for each run, as CSV and as a page: its size, tokens seen, scores, speed, hashes and settings.

    The page also has the means over seeds, if runs differ in nothing but their seeds.
    """
    rows = [run_row(folder) for folder in folders]
    settings = swept_settings([read_record(folder) for folder in folders])
    with replacing(path) as file:
        file.write(table([row | found for row, found in zip(rows, settings, strict=True)], "csv").encode())
    seeded = any(SEED in found for found in settings)
    means = [row for row in means_over_seeds(settings, rows) if row["runs"] != 1] if seeded else []
    # settings come right after the name, because they tell the rows apart
    write_runs_page(
        [{"run": row["run"], **found, **row} for row, found in zip(rows, settings, strict=True)], folders, page, means
    )
