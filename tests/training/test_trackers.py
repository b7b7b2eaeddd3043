"""Trackers get the rows of metrics.csv and validation.csv, each step once, and a failing one stops nothing."""

import importlib.util
import json
import os
import sqlite3
import struct
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support.tracked_run import CONFIG, begin, rows, train

from hipgpt.base.errors import UserError
from hipgpt.base.paths import DEFAULTS, ROOT, SCHEMA
from hipgpt.config.reading import load_config, merge, read_config
from hipgpt.config.settings import TRACKER_MODULES, Config
from hipgpt.pipeline.recipes import Recipes
from hipgpt.training.interruption import Interrupted
from hipgpt.training.trackers import TRACKERS, Trackers


@pytest.fixture
def run(tmp_path) -> Path:
    """The folder of a run that has begun."""
    folder = tmp_path / "results" / "runs" / "wide"
    begin(folder)
    return folder


def in_tensorboard(run: Path) -> list[tuple[str, int, float]]:
    """Return (name, step, value) of every scalar in the event files, without a library that would drop duplicates."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in (run.parents[1] / "trackers/tensorboard" / run.name).iterdir():
        data, at = path.read_bytes(), 0
        while at < len(data):
            (size,) = struct.unpack_from("<Q", data, at)  # then 4 bytes of CRC, the event, 4 bytes of CRC
            event = Event.FromString(data[at + 12 : at + 12 + size])
            at += size + 16
            found += [(v.tag, event.step, v.simple_value) for v in event.summary.value if v.HasField("simple_value")]
    return sorted(found)


def in_trackio(run: Path) -> list[tuple[str, int, float]]:
    database = run.parents[1] / "trackers/trackio/hipgpt.db"
    query = "select step, metrics from metrics where run_name = ?"
    logged = sqlite3.connect(database).execute(query, [run.name]).fetchall()
    return sorted((name, step, value) for step, text in logged for name, value in json.loads(text).items())


def in_mlflow(run: Path) -> list[tuple[str, int, float]]:
    query = (
        "select m.key, m.step, m.value from metrics m join runs r using (run_uuid) "
        "where r.name = ? and r.lifecycle_stage = 'active'"
    )
    return sorted(sqlite3.connect(run.parents[1] / "trackers/mlflow.db").execute(query, [run.name]).fetchall())


def in_wandb(run: Path) -> list[tuple[str, int, float]]:
    from wandb.proto.wandb_internal_pb2 import Record

    found = []
    for path in (run.parents[1] / "trackers/wandb").glob(f"offline-run-*/run-{run.name}.wandb"):
        for data in leveldb_records(path.read_bytes()):
            items = Record.FromString(data).history.item
            values = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
            found += [(name, values["_step"], value) for name, value in values.items() if not name.startswith("_")]
    return sorted(found)


def leveldb_records(data: bytes) -> Iterator[bytes]:
    """Yield the records of a log of LevelDB: blocks of 32,768 bytes, each with parts of at most one block."""
    at, record = 7, b""  # after the header of W&B
    while at < len(data):
        room = 32768 - at % 32768
        if room < 7:
            at += room
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)
        record += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # a whole record, or its last part
            yield record
            record = b""


READERS = {"tensorboard": in_tensorboard, "trackio": in_trackio, "mlflow": in_mlflow, "wandb": in_wandb}


@pytest.fixture(params=TRACKERS)
def name(request) -> str:
    if importlib.util.find_spec(TRACKER_MODULES[request.param]) is None:
        pytest.skip(f"needs pip install -e '.[{request.param}]'")
    return request.param


def process(*arguments: object) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    program = [sys.executable, "-m", "support.tracked_run", *map(str, arguments)]
    return subprocess.run(program, env=environment, capture_output=True, text=True)


def test_a_run_that_was_killed_and_resumed_has_each_row_once(name, run):
    assert process(name, run, 0, 7, "kill").returncode == 9
    other = process(name, run.with_name("very-wide"), 0, 3, "close")
    resumed = process(name, run, 4, 10, "close")
    assert (other.returncode, resumed.returncode) == (0, 0), other.stderr + resumed.stderr
    assert len(rows(run)) == 15
    for one in (run, run.with_name("very-wide")):
        assert READERS[name](one) == rows(one)
    assert "failed" not in other.stderr + resumed.stderr


class Recorder:
    """A tracker that fails when it gets the step `failing`."""

    def __init__(self, failing: int = 0):
        self.failing, self.rows = failing, []

    def log(self, rows):
        self.rows += rows
        if any(row.step == self.failing for row in rows):
            raise OSError("no server")

    def close(self, finished):
        self.rows.append("finished" if finished else "stopped")


def test_the_rows_of_a_step_in_both_files_come_together_and_in_order(run, monkeypatch):
    recorder = Recorder()
    monkeypatch.setitem(TRACKERS, "wandb", lambda *arguments: recorder)
    with Trackers(["wandb"], run, CONFIG) as following:
        train(run, 1, 3)
        following.follow()
        train(run, 4, 4)
        following.follow()
        following.follow()
    *given, last = recorder.rows
    assert [row.step for row in given] == [1, 2, 3, 4] and last == "finished"
    assert given[3].values == {"metrics/loss_nats_per_token": 7.0, "validation/bits_per_byte": 2.5}


def test_a_tracker_that_fails_is_left_out_and_the_others_continue(run, monkeypatch, caplog):
    good, bad = Recorder(), Recorder(failing=2)

    def absent(*arguments):
        raise RuntimeError("disk gone")

    for name, tracker in {"mlflow": absent, "trackio": lambda *_: bad, "wandb": lambda *_: good}.items():
        monkeypatch.setitem(TRACKERS, name, tracker)
    with Trackers(["mlflow", "trackio", "wandb"], run, CONFIG) as following:
        for step in (1, 2, 3):
            train(run, step, step)
            following.follow()
    assert len(good.rows) == 4 and len(bad.rows) == 2
    assert [record.getMessage().split(" and gets")[0] for record in caplog.records] == [
        "training.trackers: mlflow failed (RuntimeError: disk gone)",
        "training.trackers: trackio failed (OSError: no server)",
    ]


def test_a_tracker_hears_that_an_interrupted_training_is_not_finished(run, monkeypatch):
    recorder = Recorder()
    monkeypatch.setitem(TRACKERS, "mlflow", lambda *arguments: recorder)
    with pytest.raises(Interrupted), Trackers(["mlflow"], run, CONFIG):
        raise Interrupted("stopped after step 3")
    assert recorder.rows == ["stopped"]


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="needs pip install -e '.[mlflow]'")
@pytest.mark.parametrize(("end", "status"), [("interrupt", "KILLED"), ("close", "FINISHED")])
def test_mlflow_shows_whether_a_run_is_finished(run, end, status):
    process("mlflow", run, 0, 3, end)
    query = "select status from runs where name = ? and lifecycle_stage = 'active'"
    assert sqlite3.connect(run.parents[1] / "trackers/mlflow.db").execute(query, [run.name]).fetchall() == [(status,)]


def with_trackers(*names: str) -> Config:
    return load_config(merge(read_config(DEFAULTS), {"training": {"trackers": list(names)}} if names else {}))


def test_trackers_are_not_part_of_the_recipe_or_the_settings_of_a_run(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda module: module)
    plain, tracked = with_trackers(), with_trackers("tensorboard", "mlflow")
    assert tracked.runs["default"].trackers == ("tensorboard", "mlflow") and plain.runs["default"].trackers == ()
    assert tracked.runs["default"].sections == plain.runs["default"].sections
    assert Recipes(tracked).of_run("train", "default") == Recipes(plain).of_run("train", "default")


def test_a_tracker_that_is_not_installed_is_refused_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None if module == "tensorboardX" else module)
    with_trackers("wandb")
    message = "config: training.trackers: tensorboard is not installed; pip install -e '.[tensorboard]'"
    with pytest.raises(UserError) as refused:
        with_trackers("wandb", "tensorboard")
    assert str(refused.value) == message


def test_the_schema_the_code_and_the_extras_know_the_same_trackers():
    schema = yaml.safe_load(SCHEMA.read_text())["properties"]["training"]["properties"]["trackers"]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert schema["items"]["enum"] == list(TRACKERS) == list(TRACKER_MODULES) == list(READERS)
    assert all(extras[name][0].partition(">=")[0] == module for name, module in TRACKER_MODULES.items())
