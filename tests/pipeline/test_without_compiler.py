"""A machine without a C++ compiler: a warm kernel cache is enough, and an empty one is named in one line."""

import os
from pathlib import Path

import pytest
from support.workflow_copy import Project

pytestmark = pytest.mark.slow

COMPILERS = ("c++", "g++", "clang++")


@pytest.fixture
def without_compiler(tmp_path, monkeypatch):
    """Return a function that leaves every program on the PATH but the compilers."""

    def leave() -> None:
        programs = tmp_path / "programs"
        programs.mkdir()
        for folder in reversed(os.environ["PATH"].split(":")):
            for program in Path(folder).glob("*"):
                if program.name not in COMPILERS:
                    (programs / program.name).unlink(missing_ok=True)
                    (programs / program.name).symlink_to(program)
        monkeypatch.setenv("PATH", str(programs))
        monkeypatch.delenv("CXX", raising=False)

    return leave


def test_a_warm_cache_is_enough(finished, tmp_path, without_compiler):
    without_compiler()
    project = Project(tmp_path / "project")
    project.snakemake("all")
    assert (project.folder / "results/summary.csv").exists()


@pytest.mark.parametrize("made", [(), ("manifest",)], ids=["nothing is made yet", "train is next"])
def test_an_empty_cache_is_named_in_one_line(tmp_path, monkeypatch, without_compiler, made):
    project = Project(tmp_path / "project")
    if made:
        project.snakemake("all", "--until", *made)
    without_compiler()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    output = project.snakemake("all", expect=1)
    assert "no C++ compiler found: the CPU kernels and the tokenizer are compiled on first use; " in output
    assert "Traceback" not in output and "InputFunctionException" not in output
