"""Every include of a GPU kernel names a file of kernels/, so that grep, an editor and a reader find it."""

import re

import pytest

from hipgpt.base.paths import KERNELS
from hipgpt.compute.backends.gpu import included

SOURCES = sorted(path for path in (KERNELS / "gpu").rglob("*") if path.is_file())
KERNEL_SOURCES = [path for path in SOURCES if path.suffix == ".hip"]
DIRECTIVE = re.compile(r"^\s*#\s*include\b(.*)$", re.MULTILINE)
QUOTED = re.compile(r'\s*"([^"]+)"\s*(//.*)?')


def name_of(path) -> str:
    return path.relative_to(KERNELS).as_posix()


@pytest.mark.parametrize("source", SOURCES, ids=name_of)
def test_an_include_names_an_existing_file_relative_to_kernels(source):
    for rest in DIRECTIVE.findall(source.read_text()):
        name = QUOTED.fullmatch(rest)
        assert name, f"#include{rest} is neither a file in quotes nor followed by nothing but a comment"
        assert (KERNELS / name[1]).is_file(), name[1]


def test_every_header_is_included_by_some_kernel():
    found = {name for source in KERNEL_SOURCES for name in included(source)}
    headers = {name_of(path) for path in SOURCES if path.suffix == ".h"}
    assert headers <= found
