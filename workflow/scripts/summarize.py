"""Write a table with one row for each run: summary.csv."""

import argparse
from pathlib import Path

import _package  # noqa: F401 (first: it decides which hipgpt is imported)
from _arguments import parsed

from hipgpt.base.errors import exit_on_user_error
from hipgpt.reports.summary import summarize


@exit_on_user_error
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", required=True, nargs="+", type=Path, help="the runs' folders")
    parser.add_argument("--output", required=True, type=Path, help="summary.csv")
    arguments = parsed(parser)
    summarize(arguments.runs, arguments.output)


if __name__ == "__main__":
    main()
