"""Puts the package that the scripts belong to first on Python's path: that of the checkout, or the installed one.

A recipe hashes the code of this package, so another hipgpt, installed or named in PYTHONPATH, must not run instead.
"""

import sys
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "hipgpt" if (ROOT / "hipgpt").is_dir() else ROOT.parent  # a wheel holds ROOT as hipgpt/project
sys.path.insert(0, str(PACKAGE.parent))


def _without_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Show an error that main() cannot: Ctrl-C during the imports, which take a second, is not a defect."""
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _without_traceback

import hipgpt  # noqa: E402

if (found := Path(hipgpt.__file__).resolve().parent) != PACKAGE:
    sys.exit(f"error: {found}: this hipgpt was imported, expected {PACKAGE}; run the scripts that belong to it")
