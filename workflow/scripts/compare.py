"""Compare the runs of a sweep: curves, loss against parameters and operations, and the fitted power laws."""

import argparse
from pathlib import Path

import _package  # noqa: F401 (first: it decides which hipgpt is imported)
from _arguments import parsed

from hipgpt.base.errors import exit_on_user_error
from hipgpt.reports.comparison import compare


@exit_on_user_error
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", required=True, nargs="+", type=Path, help="the runs' folders")
    parser.add_argument("--output", required=True, type=Path, help="folder for pictures and tables")
    arguments = parsed(parser)
    compare(arguments.runs, arguments.output)


if __name__ == "__main__":
    main()
