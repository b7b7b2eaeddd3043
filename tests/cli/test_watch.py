"""`hipgpt watch`: it draws the runs that train, once if nobody looks, and until they are finished on a terminal."""

import json
import shutil

import pytest
from support import tiny

from hipgpt.base.files import alone_in
from hipgpt.cli import watch


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A results folder with the run `default`, which is finished, and `new`, which has done 7 steps of 20."""
    for name in ("default", "new"):
        tiny.save_run(tmp_path / "results", name)
    path = tmp_path / "results/runs/new/run.json"
    record = json.loads(path.read_text())
    record["config"]["training"]["steps"] = 20
    path.write_text(json.dumps(record))
    return tmp_path / "results"


def append_step(project, step: int) -> None:
    with open(project / "runs/new/metrics.csv", "a") as file:
        file.write(f"{step},{step * 8},5.{step},1.0,0.001\n")


def test_the_runs_that_train_are_drawn_once_if_the_output_is_not_a_terminal(hipgpt, project):
    status, text, _ = hipgpt("watch", "--results", str(project))
    assert status is None and text.startswith("new: step 7 of 20, loss 5.500, validation 5.500, 90 tokens/s\n")
    assert "default" not in text and "validation" in text and "\033" not in text and len(text.splitlines()) >= 12


def test_a_finished_run_is_drawn_if_it_is_named(hipgpt, project):
    assert hipgpt("watch", "default", "--results", str(project))[1].startswith("default: step 7 of 7, ")


def test_on_a_terminal_it_draws_until_the_last_run_is_finished(hipgpt, project, monkeypatch):
    waited = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        append_step(project, 20 if len(waited) == 2 else 8)

    monkeypatch.setattr("time.sleep", sleep)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    text = hipgpt("watch", "--results", str(project), "--every", "0.5")[1]
    drawings = text.split(watch.HOME_AND_CLEAR)[1:]
    assert [drawing.split(",")[0] for drawing in drawings] == [f"new: step {step} of 20" for step in (7, 8, 20)]
    assert waited == [0.5, 0.5]


@pytest.mark.parametrize("last", [8, 17, 1500, 1_234_567])
def test_the_steps_below_a_plot_are_round_integers(hipgpt, project, monkeypatch, last):
    monkeypatch.setenv("COLUMNS", "60")
    append_step(project, last)
    labels = hipgpt("watch", "new", "--results", str(project))[1].splitlines()[-3].split()
    ticks = [int(label.replace(",", "")) for label in labels]
    spacing = ticks[1] - ticks[0]
    assert 2 <= len(ticks) <= 5 and str(spacing).rstrip("0") in ("1", "2", "5")
    assert ticks == list(range(ticks[0], last + 1, spacing)) and ticks[0] % spacing == 0


@pytest.mark.parametrize("step", [1, 7, 13, 10**9])
def test_one_step_has_one_tick(step):
    assert watch._ticks(step, step, 3) == [step]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["other"], "watch: no run 'other' in {}; found: default, new"),
        (["--every", "0"], "--every: got 0.0, expected a number > 0"),
    ],
)
def test_a_mistake_is_one_line(hipgpt, project, options, message):
    status, _, _ = hipgpt("watch", *options, "--results", str(project))
    assert status == f"error: {message.format(project / 'runs')}"


def test_without_a_run_that_trains_it_says_so(hipgpt, project):
    append_step(project, 20)
    status, _, _ = hipgpt("watch", "--results", str(project))
    assert status == f"error: watch: no run in {project / 'runs'} is training; finished: default, new; name one of them"


def test_the_only_run_is_drawn_if_it_is_finished(hipgpt, project):
    shutil.rmtree(project / "runs/new")
    status, text, _ = hipgpt("watch", "--results", str(project))
    assert status is None and text.startswith("default: step 7 of 7, ")


@pytest.mark.parametrize(
    ("last_line", "expected"),
    [
        (
            "12:00:00 compiling kernels for this processor, once (12 to go)",
            ", compiling kernels",
        ),
        ("12:00:00 9,988 parameters on cpu", ""),
        (None, ""),
    ],
)
def test_a_run_without_a_step_says_whether_it_compiles(hipgpt, project, last_line, expected):
    folder = project / "runs/new"
    (folder / "metrics.csv").write_text("step,tokens_seen,loss_nats_per_token,gradient_norm,learning_rate\n")
    if last_line:
        (folder / "logs").mkdir()
        (folder / "logs/train.log").write_text(f"12:00:00 begins\n{last_line}\n")
    assert hipgpt("watch", "--results", str(project))[1] == f"new: no step of 20 yet{expected}\n"


@pytest.mark.parametrize("names", [["new"], []], ids=["named", "unnamed"])
def test_it_waits_for_a_run_while_the_workflow_is_at_work(hipgpt, project, tmp_path, monkeypatch, names):
    monkeypatch.chdir(tmp_path)
    (project / "runs/new").rename(tmp_path / "later")
    waited = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 2:
            (tmp_path / "later").rename(project / "runs/new")
        if len(waited) == 3:
            append_step(project, 20)

    monkeypatch.setattr("time.sleep", sleep)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    with alone_in(tmp_path / ".snakemake", "test"):
        status, text, _ = hipgpt("watch", *names)
    assert status is None and len(waited) == 3
    drawings = text.split(watch.HOME_AND_CLEAR)[1:]
    assert drawings[:2] == [f"{watch.NO_RUN_YET}\n"] * 2
    assert [one.partition(",")[0] for one in drawings[2:]] == ["new: step 7 of 20", "new: step 20 of 20"]
