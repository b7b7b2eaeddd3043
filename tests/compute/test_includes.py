"""Includes of kernels name files that exist, by their paths in kernels/: grep, clangd and a reader can follow them."""

import re

import pytest

from hipgpt.base.paths import KERNELS

INCLUDE = re.compile(r"^[ \t]*#[ \t]*include[ \t]*(.*?)[ \t]*(?://.*)?$", re.MULTILINE)
FOLDERS = ("cpu", "gpu", "bpe")
SOURCES = sorted(path for folder in FOLDERS for path in (KERNELS / folder).rglob("*") if path.is_file())


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.relative_to(KERNELS).as_posix())
def test_every_include_names_an_existing_file(source):
    for name in INCLUDE.findall(source.read_text()):
        assert re.fullmatch(r'"[\w/.]+"|<[\w/.]+>', name), f"not a file's name: {name}"
        if name.startswith('"'):
            assert (KERNELS / name.strip('"')).is_file(), f"no {name} in kernels/"


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_header_is_included(folder):
    included = {name.strip('"') for source in SOURCES for name in INCLUDE.findall(source.read_text())}
    headers = {path.relative_to(KERNELS).as_posix() for path in SOURCES if path.suffix == ".h"}
    assert {name for name in headers if name.startswith(f"{folder}/")} <= included
