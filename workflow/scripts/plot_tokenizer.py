"""Draw how far the merges of a tokenizer compress its text: compression.png."""

import argparse
from pathlib import Path

import _package  # noqa: F401 (first: it decides which hipgpt is imported)
from _arguments import parsed

from hipgpt.base.errors import exit_on_user_error
from hipgpt.reports.plots import plot_tokenizer


@exit_on_user_error
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", required=True, nargs=2, type=Path, help="merges.csv and compression.csv")
    parser.add_argument("--output", required=True, type=Path, help="the picture")
    arguments = parsed(parser)
    plot_tokenizer(*arguments.tables, arguments.output)


if __name__ == "__main__":
    main()
