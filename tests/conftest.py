"""What every test of the engine runs on."""

import sys
from pathlib import Path

import hypothesis
import pytest
from support import tiny

from hipgpt.cli import main as cli
from hipgpt.compute.device import DeviceAbsent
from hipgpt.compute.open_device import open_device
from hipgpt.compute.tensor import DType

hypothesis.settings.register_profile("shared_machine", deadline=None)  # a test is not slow because others are
hypothesis.settings.load_profile("shared_machine")

# a backend joins the tests of ops, gradients and causality by its name here: the dtypes it has kernels for, and marks
DEVICES = {
    "cpu": ((DType.F32, DType.BF16), ()),
    "hip": ((DType.F32, DType.BF16), pytest.mark.gpu),
    "cuda": ((DType.F32, DType.BF16), pytest.mark.gpu),
}


@pytest.fixture(params=[pytest.param(name, marks=marks) for name, (_, marks) in DEVICES.items()])
def device(request):
    try:
        return open_device(request.param, threads=2)
    except DeviceAbsent as error:
        pytest.skip(str(error))


every_device_in_every_dtype = pytest.mark.parametrize(
    ("device", "act"),
    [
        pytest.param(name, act, marks=marks, id=f"{name}-{act.label}")
        for name, (acts, marks) in DEVICES.items()
        for act in acts
    ],
    indirect=["device"],
)


@pytest.fixture(scope="session")
def results(tmp_path_factory) -> Path:
    """A results folder with two finished runs and one that has not begun; not to be changed."""
    folder = tmp_path_factory.mktemp("project") / "results"
    tiny.save_run(folder)
    tiny.save_run(folder, "wide", seed=1)
    (folder / "runs" / "unfinished").mkdir()
    return folder


@pytest.fixture
def hipgpt(results, monkeypatch, capsys):
    """Return a function that runs the command in this process; it returns exit status, stdout and stderr."""
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
