"""The cache of compiled kernels: a library is compiled again when, and only when, its code or its macros change."""

import ctypes
import json
import os
import subprocess
import sys

import pytest

from hipgpt.base import compiler
from hipgpt.base.errors import UserError
from hipgpt.base.kernel_cache import cache_folder

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


LOAD = """import pathlib, sys
from hipgpt.base import compiler
from hipgpt.base.errors import exit_on_user_error
compiler.KERNELS = pathlib.Path(sys.argv[1])
print(exit_on_user_error(compiler.load_library)(compiler.KERNELS / "answer.cpp", {"OFFSET": 10}).answer())
"""


def load(source, path=os.environ["PATH"]) -> subprocess.CompletedProcess:
    """Load the library in a new process, with another PATH."""
    command, environment = [sys.executable, "-c", LOAD, source.parent], {**os.environ, "PATH": path}
    environment.pop("CXX", None)
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_a_cached_library_is_loaded_without_a_compiler(source):
    assert load(source).stdout == "11\n"
    done = load(source, path="")
    assert (done.returncode, done.stdout, done.stderr) == (0, "11\n", "")


def damage(path):
    path.write_bytes(path.read_bytes().replace(b"march=native", b"march=haswell"))


@pytest.mark.parametrize(
    "change",
    [
        lambda kernels, answers: (kernels / "outer.h").write_text("#define VALUE 5\n"),
        lambda kernels, answers: answers.unlink(),
        lambda kernels, answers: answers.write_bytes(answers.read_bytes()[:-50]),
        lambda kernels, answers: damage(answers),
        lambda kernels, answers: answers.rename(answers.with_name("compiler-of-another-processor.json")),
        lambda kernels, answers: next(answers.parent.glob("answer-*.so")).write_bytes(b""),
    ],
    ids=["another source", "no answers", "half of them", "changed answers", "another processor", "a damaged library"],
)
def test_a_library_that_would_have_to_be_compiled_is_refused_without_a_compiler(source, change):
    assert load(source).stdout == "11\n"
    [answers] = cache_folder().glob("compiler-*.json")
    change(source.parent, answers)
    done = load(source, path="")
    assert done.returncode == 1 and done.stderr.startswith("error: no C++ compiler found: ")
    assert done.stderr.count("\n") == 1
    assert load(source).returncode == 0


def test_answers_of_an_earlier_compiler_are_forgotten(source, tmp_path, monkeypatch):
    assert load(source).stdout == "11\n"
    wrapper = tmp_path / "other-compiler"
    wrapper.write_text(f'#!/bin/sh\nexec {compiler.host_compiler()[0]} "$@"\n')
    wrapper.chmod(0o755)
    [answers] = cache_folder().glob("compiler-*.json")
    before = json.loads(answers.read_text())["content"]
    command = [sys.executable, "-c", "from hipgpt.base.compiler_answers import ask; ask('-dumpmachine')"]
    subprocess.run(command, env={**os.environ, "CXX": str(wrapper)}, check=True)
    after = json.loads(answers.read_text())["content"]
    assert after["version"] != before["version"] and len(before["answers"]) > len(after["answers"]) == 1


def test_a_library_whose_own_libraries_are_missing_is_named(source, monkeypatch):
    monkeypatch.setattr(compiler, "host_library", lambda source, macros: source)  # no library at all
    with pytest.raises(UserError, match=r"answer.cpp: cannot be loaded \(.*\); install the compiler's libraries"):
        compiler.load_library(source)


def test_missing_libraries_are_compiled_together_and_the_log_says_so_once(source, caplog):
    wanted = [(source, {"OFFSET": offset}) for offset in (1, 2, 3)]
    compiler.host_library(*wanted[0])
    with caplog.at_level("INFO", logger="hipgpt"):
        compiler.compile_libraries(wanted, threads=2)
        compiler.compile_libraries(wanted, threads=2)
    assert [record.message.split(";")[0] for record in caplog.records] == [
        "compiling kernels for this processor, once (2 to go)"
    ]
    assert [answer(compiler.host_library(*one)) for one in wanted] == [2, 3, 4]


def test_missing_code_objects_of_a_gpu_are_compiled_one_by_one_and_the_log_says_so_once(source, caplog):
    compiled = []

    def code(number: int) -> compiler.CodeObject:
        return compiler.CodeObject("k", ["gfx", str(number)], lambda: compiled.append(number) or bytes([number]))

    assert code(1).read() == b"\1"
    with caplog.at_level("INFO", logger="hipgpt"):
        for _ in range(2):
            compiler.compile_code_objects([code(1), code(2), code(3), code(3)])
    assert [record.message for record in caplog.records] == [
        f"compiling kernels for this GPU, once (2 to go); they are kept in {cache_folder()}"
    ]
    assert compiled == [1, 2, 3] and code(3).read() == b"\3"


def test_a_source_that_does_not_compile_ends_the_others_with_its_own_words(source):
    source.write_text("not C++")
    with pytest.raises(UserError, match=r"answer.cpp: .* failed with exit status"):
        compiler.compile_libraries([(source, {"OFFSET": 1}), (source, {"OFFSET": 2})], threads=2)
