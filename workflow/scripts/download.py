"""Fetch, verify, clean and split one corpus: writes train.txt, validation.txt and provenance.json into a folder."""

import argparse
import json
from pathlib import Path

import _package  # noqa: F401 (first: it decides which hipgpt is imported)
from _arguments import parsed

from hipgpt.base.errors import exit_on_user_error
from hipgpt.data.corpus import build_corpus


@exit_on_user_error
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="the corpus's name in config.yaml")
    parser.add_argument("--settings", required=True, type=json.loads, help="its entry in config.yaml, as JSON")
    parser.add_argument("--output", required=True, type=Path, help="folder for the three files")
    parser.add_argument("--downloads", type=Path, default=Path("downloads"), help="folder that keeps downloaded files")
    arguments = parsed(parser)
    build_corpus(arguments.name, arguments.settings, arguments.output, arguments.downloads)


if __name__ == "__main__":
    main()
