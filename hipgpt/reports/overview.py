"""Write results/summary.html, the page of all runs."""

from pathlib import Path

from hipgpt.reports.pages import write_runs_page
from hipgpt.reports.summary import rows_of
from hipgpt.reports.swept import SEED, means_over_seeds


def write_overview(folders: list[Path], page: Path) -> None:
    """Write the rows of summary.csv, the curves of the runs, and the means over seeds if runs differ in seeds."""
    rows, settings = rows_of(folders)
    seeded = any(SEED in found for found in settings)
    means = [row for row in means_over_seeds(settings, rows) if row["runs"] != 1] if seeded else []
    # a phone shows the first columns: the name, the result, and the settings, which tell the rows apart
    first = ("run", "validation_bits_per_byte")
    ordered = [
        {**{name: row[name] for name in first}, **found, **row} for row, found in zip(rows, settings, strict=True)
    ]
    write_runs_page(ordered, folders, page, means)
