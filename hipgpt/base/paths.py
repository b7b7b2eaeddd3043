"""Paths of the project's own files. A wheel holds those outside of the package in hipgpt/project (setup.py)."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
ROOT = PACKAGE / "project" if (PACKAGE / "project").is_dir() else PACKAGE.parent
KERNELS = ROOT / "kernels"
SCHEMA = ROOT / "workflow" / "schemas" / "config.schema.yaml"
SNAKEFILE = ROOT / "Snakefile"
DEFAULTS = ROOT / "config.yaml"
HUB = "hub:"  # in the config, before the name of a repository where a path may stand too
TEMPLATES = PACKAGE / "reports" / "templates"  # of pages
