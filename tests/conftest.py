"""Fixtures that tests of several wings share."""

import sys
from pathlib import Path

import hypothesis
import pytest
from support import tiny
from support.devices import DEVICES
from support.workflow_copy import Project

from hipgpt.cli import main as cli
from hipgpt.compute.device import DeviceAbsent
from hipgpt.compute.open_device import open_device

hypothesis.settings.register_profile("shared_machine", deadline=None)  # the machine may be busy with other tests
hypothesis.settings.load_profile("shared_machine")


@pytest.fixture(params=[pytest.param(name, marks=marks) for name, (_, marks) in DEVICES.items()])
def device(request):
    try:
        return open_device(request.param, threads=2)
    except DeviceAbsent as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def results(tmp_path_factory) -> Path:
    """A results folder with two finished runs and one that has not begun. Tests must not change it."""
    folder = tmp_path_factory.mktemp("project") / "results"
    tiny.save_run(folder)
    tiny.save_run(folder, "wide", seed=1)
    (folder / "runs" / "unfinished").mkdir()
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Project:
    """A project whose `all` has run. Tests must not change it."""
    project = Project(tmp_path_factory.mktemp("finished") / "project")
    project.snakemake("all")
    return project


@pytest.fixture
def changed(finished, tmp_path) -> Project:
    """A copy of the finished project, dates and metadata included, to change at will."""
    return finished.copied_to(tmp_path / "project")


@pytest.fixture
def hipgpt(results, monkeypatch, capsys):
    """Return a function that runs the command in this process and returns exit status, stdout and stderr."""
    monkeypatch.chdir(results.parent)

    def run(*arguments: str) -> tuple[int | str | None, str, str]:
        monkeypatch.setattr(sys, "argv", ["hipgpt", *arguments])
        try:
            cli.main()
            status = None
        except SystemExit as exit:
            status = exit.code
        return status, *capsys.readouterr()

    return run


def pytest_make_parametrize_id(val, argname):
    """Names a file's content by its argument, because a compressed one holds the time and workers would disagree."""
    return argname if isinstance(val, bytes) else None
