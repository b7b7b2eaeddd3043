"""Checkpoints and resumable state: they are whole or absent, and those of other runs are not loaded."""

import json
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support import tiny

from hipgpt.base.errors import UserError
from hipgpt.base.nested import differences
from hipgpt.gpt.checkpoint import load_checkpoint, load_model, load_weights, read_arena, save_checkpoint
from hipgpt.training import state
from hipgpt.training.state import StateFolder

FINGERPRINT = {"model": {"embed_dim": 8, "num_heads": 2}, "training": {"steps": 10}, "code": "aa", "device": "cpu"}


def arrays_of(step: int) -> dict[str, np.ndarray]:
    return {"weights.a": np.full((2, 3), step, np.float32), "weights.b": np.arange(step, step + 5, dtype=np.float32)}


@pytest.fixture
def live(tmp_path) -> list[Path]:
    files = [tmp_path / "metrics.csv", tmp_path / "samples.txt"]
    for file in files:
        file.write_text("begun\n")
    return files


@pytest.fixture
def states(tmp_path, live) -> StateFolder:
    return StateFolder(tmp_path / "state", FINGERPRINT, keep_last=2, live_files=live)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_checkpoint_gives_back_arrays_and_metadata(tmp_path):
    save_checkpoint(tmp_path / "c.safetensors", arrays_of(3), {"model": {"x": 1}, "step": 3})
    arrays, metadata = load_checkpoint(tmp_path / "c.safetensors")
    assert metadata == {"model": {"x": 1}, "step": 3}
    assert {name: array.tolist() for name, array in arrays.items()} == {n: a.tolist() for n, a in arrays_of(3).items()}


def test_weights_come_back_on_the_device(device, tmp_path):
    run, expected = tiny.save_run(tmp_path), tiny.draw_arrays()
    model, weights = load_weights(run / "checkpoints" / "best.safetensors", device, tiny.tokenizer().sha256)
    assert model == tiny.MODEL
    found = read_arena(device, weights.arena)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_equal_checkpoints_are_equal_files(tmp_path):
    for name in ("one", "other"):
        save_checkpoint(tmp_path / name, arrays_of(3), {"model": asdict(tiny.MODEL), "step": 3})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "no such file; run the train stage"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "not a whole safetensors file .*; delete it and run"),
        (lambda path: path.write_bytes(b""), "not a whole safetensors file .*; delete it and run the train stage"),
        (
            lambda path: save_file(load_file(path), path),
            "its metadata hold no model, expected a checkpoint of the train",
        ),
    ],
)
def test_a_damaged_checkpoint_is_refused_by_name(tmp_path, damage, message):
    path = tiny.save_run(tmp_path) / "checkpoints" / "best.safetensors"
    damage(path)
    with pytest.raises(UserError, match=f"best.safetensors: {message}"):
        load_model(path, tiny.tokenizer().sha256)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays: arrays.pop("output.bias"), r"output.bias: got nothing, expected float32 \(300,\)"),
        (lambda arrays: arrays.update({"output.bias": np.zeros(9, np.float32)}), r"output.bias: got float32 \(9,\)"),
        (lambda arrays: arrays.update({"output.bias": np.zeros(300)}), r"output.bias: got float64 \(300,\), expected"),
    ],
)
def test_a_checkpoint_without_the_model_s_weights_is_refused(tmp_path, change, message):
    arrays = tiny.draw_arrays()
    change(arrays)
    save_checkpoint(tmp_path / "c", arrays, {"model": asdict(tiny.MODEL), "tokenizer_sha256": "t"})
    with pytest.raises(UserError, match=message):
        load_model(tmp_path / "c", "t")


def test_there_is_no_state_at_first(states):
    assert states.steps() == []
    assert states.load_last() is None


def test_the_last_states_are_kept_and_the_last_is_loaded(states):
    for step in (2, 4, 6, 100_000_000):  # one more digit than the folder's name is padded to
        states.save(step, arrays_of(step), {"step": step, "best_loss": 1.5})
    assert states.steps() == [6, 100_000_000]
    states.save(8, arrays_of(8), {"step": 8})
    assert states.steps() == [8, 100_000_000]
    arrays, progress = states.load_last()
    assert progress == {"step": 100_000_000, "best_loss": 1.5}
    assert (arrays["weights.a"] == 100_000_000).all()


def test_loading_puts_the_live_files_back_as_they_were(states, live):
    states.save(2, arrays_of(2), {"step": 2})
    for file in live:
        file.write_text(file.read_text() + "rows after the state was saved\n")
    live[1].unlink()
    states.load_last()
    assert [file.read_text() for file in live] == ["begun\n"] * 2


def test_saving_a_step_again_replaces_it(states, live):
    states.save(2, arrays_of(2), {"step": 2, "try": 1})
    live[0].write_text("second try\n")
    states.save(2, arrays_of(2), {"step": 2, "try": 2})
    assert states.steps() == [2]
    assert states.load_last()[1]["try"] == 2
    assert live[0].read_text() == "second try\n"


@pytest.mark.parametrize("failing", ["save_checkpoint", "replacing"])
def test_an_exception_while_saving_leaves_the_states_before_it(states, monkeypatch, failing):
    states.save(2, arrays_of(2), {"step": 2})
    before = contents(states.path(2))

    def fail(*arguments):
        raise OSError("disk full")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="disk full"):
        patched.setattr(state, failing, fail)
        states.save(4, arrays_of(4), {"step": 4})
    assert states.steps() == [2]
    assert contents(states.path(2)) == before
    states.save(4, arrays_of(4), {"step": 4})
    assert states.load_last()[1] == {"step": 4}


def test_a_state_that_names_a_file_elsewhere_is_passed_over(states, caplog):
    for step in (2, 4):
        states.save(step, arrays_of(step), {"step": step})
    path = states.path(4) / "state.safetensors"
    arrays, metadata = load_checkpoint(path)
    metadata["files_sha256"] |= {"../../secret": "ab" * 32}
    save_checkpoint(path, arrays, metadata)
    assert states.load_last()[1] == {"step": 2}
    assert "has other files than a state; going back to the state before it" in caplog.text


def test_a_checkpoint_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, arrays_of(1), {})
    monkeypatch.setattr("hipgpt.base.files.os.replace", lambda *paths: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_checkpoint(path, arrays_of(2), {})
    assert (load_checkpoint(path)[0]["weights.a"] == 1).all()
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"code": "bb"}, "code aa -> bb"),
        ({"training": {"steps": 20}}, "training.steps 10 -> 20"),
        ({"model": {"embed_dim": 2, "num_heads": 8}}, "model.embed_dim 8 -> 2; model.num_heads 2 -> 8"),
        ({"model": {"embed_dim": 8}}, "model.num_heads 2 -> None"),
        ({"data": "d"}, "data None -> d"),
        ({"code": "0123456789abcdef" * 4}, "code aa -> 01234567..."),
    ],
)
def test_a_state_of_another_run_stays_where_it_is_and_what_differs_is_named(states, live, change, named):
    states.save(2, arrays_of(2), {"step": 2})
    before = contents(states.folder)
    live[0].write_text("of the new run\n")
    other = StateFolder(states.root, FINGERPRINT | change, 2, live)
    assert other.load_last() is None
    assert other.refuse_others() == f"{states.path(2)}: this state belongs to another run ({named}) and stays there"
    assert contents(states.folder) == before
    assert live[0].read_text() == "of the new run\n"


def test_the_state_of_a_run_is_found_again_after_others(states, live):
    states.save(2, arrays_of(2), {"step": 2})
    for code in ("bb", "cc"):
        other = StateFolder(states.root, FINGERPRINT | {"code": code}, 2, live)
        other.refuse_others()
        other.save(4, arrays_of(4), {"step": 4})
    assert StateFolder(states.root, FINGERPRINT, 2, live).load_last()[1] == {"step": 2}


def test_the_states_of_two_other_runs_are_kept(states, live):
    for number, code in enumerate(("bb", "cc", "dd", "ee")):
        other = StateFolder(states.root, FINGERPRINT | {"code": code}, 2, live)
        saved = other.save(2, arrays_of(2), {"step": 2})
        os.utime(saved / "state.safetensors", (number, number))
    states.refuse_others()
    kept = {load_checkpoint(path)[1]["fingerprint"]["code"] for path in states.root.glob("*/step_*/state.safetensors")}
    assert kept == {"dd", "ee"}


def test_a_state_without_one_of_its_files_does_not_count(states, live):
    for step in (2, 4):
        states.save(step, arrays_of(step), {"step": step})
    (states.path(4) / live[0].name).unlink()
    assert states.load_last()[1] == {"step": 2}


@pytest.mark.parametrize("name", ["state.safetensors", "metrics.csv"])
@pytest.mark.parametrize("damage", [lambda data: data[:-5], lambda data: data[:-5] + b"\xff" + data[-4:]])
def test_a_damaged_state_is_named_and_the_one_before_it_serves(states, live, caplog, name, damage):
    for step in (2, 4):
        states.save(step, arrays_of(step), {"step": step})
    damaged = states.path(4) / name
    damaged.write_bytes(damage(damaged.read_bytes()))
    assert states.load_last()[1] == {"step": 2}
    assert f"step_00000004/{name}: " in caplog.text and "going back to the state before it" in caplog.text
    states.save(4, arrays_of(4), {"step": 4})
    assert states.load_last()[1] == {"step": 4}


def test_the_fingerprint_is_compared_as_it_is_read_back(states):
    states.save(2, arrays_of(2), {"step": 2})
    _, metadata = load_checkpoint(states.path(2) / "state.safetensors")
    assert metadata["fingerprint"] == json.loads(json.dumps(FINGERPRINT))
    assert differences(metadata["fingerprint"], FINGERPRINT) == []
