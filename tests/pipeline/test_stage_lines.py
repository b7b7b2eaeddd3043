"""The workflow on a terminal: a line a stage, dry runs that can be read, and the reason of a failure last and alone."""

import io
import logging
import re
from types import SimpleNamespace

import pytest
import yaml
from snakemake_interface_logger_plugins.common import LogEvent
from support.workflow_copy import TINY, Project

from hipgpt.base.log import last_error
from hipgpt.pipeline.stage_lines import StageLines, duration

STAGES = 18  # three of them make shards


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines_of(*records: dict, on_terminal: bool = False, dryrun: bool = False) -> str:
    """Return the text that a handler writes for records, given as their fields, and at its end."""
    handler = StageLines(SimpleNamespace(stdout=False, verbose=False, dryrun=dryrun, quiet=None), None)
    handler.stream = Terminal() if on_terminal else io.StringIO()
    for fields in records:
        plain = {"levelno": logging.INFO, "pathname": "/x/snakemake/jobs.py", "msg": ""}
        handler.emit(logging.makeLogRecord({**plain, **fields}))
    handler.close()
    return handler.stream.getvalue()


def begun(job: int, name: str = "train", log: str = "x/logs/train.log", **more) -> dict:
    fields = {"rule_name": name, "wildcards": {"run": "wide"}, "log": [log], "output": [], "reason": ""}
    return {"event": LogEvent.JOB_INFO, "jobid": job, **fields, **more}


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    monkeypatch.setenv("HIPGPT_ERRORS_SHOWN_LATER", "1")  # so that what a handler sets is undone
    monkeypatch.setenv("COLUMNS", "80")


def test_a_finished_stage_is_one_line_with_its_number_and_its_time():
    text = lines_of(
        {"event": LogEvent.RUN_INFO, "stats": {"train": 1, "all": 1, "total": 2}},
        begun(1),
        {"event": LogEvent.JOB_FINISHED, "job_id": 1},
    )
    assert re.fullmatch(r"1 stage to run: train\n\[1/1\]  train wide +0\.\d s\n", text)


def test_a_terminal_shows_the_running_stages_until_the_next_line():
    text = lines_of(begun(1), begun(2, "plot"), on_terminal=True)
    assert "\r\x1b[Ktrain wide, plot wide ..." in text and text.endswith("\r\x1b[K")


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("died with <Signals.SIGKILL: 9>.", "killed by SIGKILL; the system does that when memory runs out"),
        ("returned non-zero exit status 139.", "killed by SIGSEGV"),
        ("returned non-zero exit status 3.", "ended with status 3, without a message in its log"),
        ("returned non-zero exit status 130.", "stopped by SIGINT; the same command runs it again"),
        ("died with <Signals.SIGTERM: 15>.", "stopped by SIGTERM; the same command runs it again"),
    ],
)
def test_a_stage_without_a_message_says_how_it_ended(status, reason):
    command = f"RuleException:\nCalledProcessError in file x: Command 'python {'x' * 2000}' {status}"
    text = lines_of(
        begun(1),
        {"event": LogEvent.ERROR, "msg": command, "exception": "RuleException", "levelno": logging.ERROR},
        {"event": LogEvent.JOB_ERROR, "jobid": 1, "log": ["x/logs/train.log"], "levelno": logging.ERROR},
    )
    assert text.endswith(f"\ntrain wide: {reason}\n    log: x/logs/train.log\n") and "xxx" not in text
    assert re.search(" s  (stopped|failed)\n", text)[1] == ("stopped" if "stopped" in reason else "failed")


def test_a_training_that_a_signal_stopped_has_not_failed(tmp_path):
    log = tmp_path / "train.log"
    log.write_text("10:00:01 error: stopped after step 7 of 9, state saved; the same command continues from there\n")
    text = lines_of(begun(1, log=str(log)), {"event": LogEvent.JOB_ERROR, "jobid": 1, "log": [str(log)]})
    assert " s  stopped\n" in text and "failed" not in text


def test_the_reason_is_the_error_that_ends_the_log_of_this_attempt(tmp_path):
    log = tmp_path / "train.log"
    log.write_text("10:00:00 step 1\n10:00:01 error: no compiler\ng++: not found\n")
    assert last_error(str(log), 0) == "no compiler\ng++: not found"
    assert last_error(str(log), log.stat().st_mtime + 60) is None
    log.write_text("10:00:01 error: no compiler\n10:05:00 step 2\n")
    assert last_error(str(log), 0) is None


def test_no_line_of_a_dry_run_grows_with_the_number_of_runs():
    many = [f"results/runs/{number}/metrics.csv" for number in range(500)]
    job = begun(1, "summarize", reason=f"Input files updated by another job: {many}", output=many)
    text = lines_of(job, {"event": LogEvent.SHELLCMD, "shellcmd": "python summarize.py"}, dryrun=True)
    assert max(map(len, text.splitlines())) < 80
    assert "    python summarize.py" in text  # which Snakemake's own filter lets through with --printshellcmds only


@pytest.mark.slow
def test_a_dry_run_names_its_reasons_as_hipgpt_why_does(changed):
    changed.write_config({**TINY, "training": {**TINY["training"], "steps": 13, "seed": 2}})
    lines = changed.snakemake("--dry-run", "all").splitlines()
    assert lines[lines.index("train default") :][:3] == [
        "train default",
        "    training.seed 1 -> 2",
        "    training.steps 12 -> 13",
    ]
    assert lines[lines.index("evaluate default") + 1] == "    because train would run"
    assert not [line for line in lines if "Params have changed" in line]


def test_warnings_and_messages_of_executors_are_shown():
    shown = {"msg": "Job 7 was submitted", "pathname": "/x/snakemake_executor_plugin_slurm/__init__.py"}
    hidden = {"msg": "Select jobs to execute..."}
    assert lines_of({**hidden, "pathname": __import__("snakemake").__file__}, shown) == "Job 7 was submitted\n"
    assert lines_of({"msg": "disk is slow", "levelno": logging.WARNING}) == "disk is slow\n"


@pytest.mark.parametrize("dryrun", [False, True])
def test_what_an_option_asks_for_is_answered(dryrun):
    answers = ["Would delete results/summary.csv", "Deleting results/summary.csv", "Unlocked working directory."]
    records = [{"msg": text, "pathname": __import__("snakemake").__file__} for text in answers]
    assert lines_of(*records, dryrun=dryrun).splitlines() == answers


def test_durations_are_short():
    assert [duration(s) for s in (0.04, 59.9, 59.97, 185, 7805)] == [
        "0.0 s",
        "59.9 s",
        "1 min 00 s",
        "3 min 05 s",
        "2 h 10 min",
    ]


@pytest.mark.slow
def test_a_workflow_shows_a_line_a_stage_then_its_reason_if_it_fails(tmp_path):
    project = Project(tmp_path / "project")
    output = project.snakemake("all")
    ended = [line for line in output.splitlines() if re.match(rf"\[ ?\d+/{STAGES}\]", line)]
    assert len(ended) == STAGES and "jobid" not in output and "eligible for caching" not in output
    assert output.count("next:") == 1 and output.splitlines()[-1].endswith("into one page")
    output = project.snakemake("all")
    assert output.splitlines()[1:] == ["Nothing to be done (all requested files are present and up to date)."]

    training = {**TINY["training"], "learning_rate_peak": 1e30, "clip_norm": 1e9}
    (project.folder / "tiny.yaml").write_text(yaml.safe_dump({**TINY, "training": training}))
    lines = project.snakemake("all", expect=1).splitlines()
    assert lines[-4] == "" and lines[-3].startswith("train default: step 2: loss is nan")
    assert lines[-2] == "    log: results/runs/default/logs/train.log"
    assert re.fullmatch(r"the finished run default is kept; to go back: hipgpt restore default [0-9a-f]{8}", lines[-1])
    assert re.fullmatch(r"\[ 0/10\]  train default .* s  failed", lines[-5])
    assert max(map(len, lines)) < 400
