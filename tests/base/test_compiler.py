"""The cache of compiled kernels: a library is compiled again when, and only when, its code or its macros change."""

import ctypes

import pytest

from hipgpt.base import compiler
from hipgpt.base.errors import UserError

SOURCE = """#include "outer.h"
extern "C" int answer() { return VALUE + OFFSET; }
"""


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A source with a header that includes one of two others, in a folder that stands for kernels/."""
    files = {
        "answer.cpp": SOURCE,
        "outer.h": '#if OTHER\n#include "folder/b.h"\n#else\n#include "folder/a.h"\n#endif\n',
        "folder/a.h": "#define VALUE 1\n",
        "folder/b.h": "#define VALUE 2\n",
    }
    kernels = tmp_path / "kernels"
    (kernels / "folder").mkdir(parents=True)
    for name, text in files.items():
        (kernels / name).write_text(text)
    monkeypatch.setattr(compiler, "KERNELS", kernels)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return kernels / "answer.cpp"


def answer(library) -> int:
    return ctypes.CDLL(str(library)).answer()


def test_a_library_is_compiled_once_for_the_same_macros(source):
    library = compiler.host_library(source, {"OFFSET": 10})
    compiled = library.stat().st_mtime_ns
    assert compiler.host_library(source, {"OFFSET": 10}) == library
    assert library.stat().st_mtime_ns == compiled


def test_macros_choose_what_is_compiled(source):
    libraries = [
        compiler.host_library(source, {"OFFSET": offset, "OTHER": other}) for offset in (10, 20) for other in (0, 1)
    ]
    assert [answer(library) for library in libraries] == [11, 12, 21, 22]


@pytest.mark.parametrize("header", ["outer.h", "folder/a.h"])
def test_an_edit_of_any_included_header_compiles_again(source, header):
    before = compiler.host_library(source, {"OFFSET": 10})
    path = source.parent / header
    path.write_text(path.read_text().replace("VALUE 1", "VALUE 3") + "// edited\n")
    after = compiler.host_library(source, {"OFFSET": 10})
    assert after != before
    assert answer(after) == (13 if header == "folder/a.h" else 11)


def test_every_branch_of_an_if_counts_as_included(source):
    found = compiler.with_headers(source)
    assert {path.relative_to(source.parent).as_posix() for path in found} == {
        "answer.cpp", "outer.h", "folder/a.h", "folder/b.h",
    }  # fmt: skip


def test_a_source_that_does_not_compile_is_refused_with_the_compilers_words(source):
    with pytest.raises(UserError, match=r"answer\.cpp.*failed with exit status(.|\n)*OFFSET"):
        compiler.host_library(source)
