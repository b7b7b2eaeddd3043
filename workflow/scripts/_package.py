"""Puts the checkout that the scripts belong to first on Python's path.

A recipe hashes the code of this checkout, so another hipgpt, installed or named in PYTHONPATH, must not run instead.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import hipgpt  # noqa: E402

if (found := Path(hipgpt.__file__).resolve().parent) != ROOT / "hipgpt":
    sys.exit(f"error: {found}: this hipgpt was imported, expected {ROOT / 'hipgpt'}; run the scripts of that checkout")
