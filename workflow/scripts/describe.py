"""Write a run's page: figures, curves, evaluation compared with baselines, samples, provenance."""

import argparse
from pathlib import Path

import _package  # noqa: F401 (first: it decides which hipgpt is imported)
from _arguments import parsed

from hipgpt.base.errors import exit_on_user_error
from hipgpt.reports.pages import write_run_page


@exit_on_user_error
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True, type=Path, help="the run's folder")
    parser.add_argument("--tasks", required=True, type=Path, nargs="*", help="tasks.csv, if the run answers tasks")
    parser.add_argument("--output", required=True, type=Path, help="report.html")
    arguments = parsed(parser)
    write_run_page(arguments.run, arguments.output, *arguments.tasks)


if __name__ == "__main__":
    main()
