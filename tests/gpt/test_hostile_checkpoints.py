"""Checkpoints, states and other files that lie: one line that names file and tensor, or the state before."""

import json
import os
from dataclasses import asdict

import numpy as np
import pytest
from support import tiny

from hipgpt.base.errors import UserError
from hipgpt.base.json_files import read_json
from hipgpt.data.tokenizer.tokenizer import Tokenizer
from hipgpt.gpt.checkpoint import load_checkpoint, load_model, save_checkpoint
from hipgpt.training.state import StateFolder


def f8_file(path, dtype: str) -> None:
    """Write a safetensors file with one tensor of eight bits an element."""
    header = json.dumps({"w": {"dtype": dtype, "shape": [4], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "BF16"])
def test_a_dtype_that_numpy_lacks_is_named(tmp_path, dtype):
    f8_file(tmp_path / "x", dtype)
    with pytest.raises(UserError, match=f"/x: (w: got {dtype}, expected one of F32|not a whole safetensors file)"):
        load_checkpoint(tmp_path / "x")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"activation": "swish"},
            "model.activation: got 'swish', expected gelu or relu or relu2 with model.architecture: gpt2; delete",
        ),
        ({"num_heads": 5}, "model.num_heads: got 5, expected a divisor of model.embed_dim = 12; delete it"),
    ],
)
def test_a_model_that_no_kernel_computes_is_refused(tmp_path, changes, message):
    save_checkpoint(
        tmp_path / "x", tiny.draw_arrays(), {"model": {**asdict(tiny.MODEL), **changes}, "tokenizer_sha256": "t"}
    )
    with pytest.raises(UserError, match=message):
        load_model(tmp_path / "x", "t")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite_is_named(tmp_path, value):
    arrays = tiny.draw_arrays()
    arrays["block1.mlp_in.weight"][2, 3] = value
    save_checkpoint(tmp_path / "x", arrays, {"model": asdict(tiny.MODEL), "tokenizer_sha256": "t"})
    with pytest.raises(UserError, match="/x: block1.mlp_in.weight: element 27: got .*, expected finite weights"):
        load_model(tmp_path / "x", "t")


@pytest.mark.parametrize("kind", ["folder", "pipe", "/proc/kmsg"])
@pytest.mark.parametrize("read", [load_checkpoint, Tokenizer.load, lambda path: read_json(path, {}, "run it again")])
def test_a_folder_a_pipe_or_a_file_of_proc_is_not_opened(tmp_path, kind, read):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match=": got (a folder|a pipe|a file of the system), expected a file on a disk"):
        read(tmp_path / kind)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["added_tokens"][0].update(content="\ud800"), "content: got .*, expected whole characters"),
        (lambda d: d["model"]["vocab"].update({"\ud800": 5000}), "expected a token in GPT-2's byte characters"),
        (lambda d: d["model"]["vocab"].update({"\x1b[2J\x07": 5000}), "expected a token in GPT-2's byte characters"),
        (lambda d: d.update({"\x1b[31m": 5}), "expected no such field"),
    ],
)
def test_a_name_in_a_tokenizer_reaches_no_terminal(tmp_path, change, message):
    path = tmp_path / "tokenizer.json"
    tiny.tokenizer().save(path)
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(UserError, match=message) as error:
        Tokenizer.load(path)
    assert str(error.value).isprintable()


@pytest.fixture
def states(tmp_path):
    (tmp_path / "log").write_text("x", encoding="utf-8")
    return StateFolder(tmp_path / "state", {"code": "a"}, 2, [tmp_path / "log"])


FIELDS = {"weights.a": ((2,), np.dtype(np.float32))}
ARRAYS = {"weights.a": np.ones(2, np.float32)}


@pytest.mark.parametrize(
    "name", ["step_00000005.bak2", "step_5x1", "step_\u0665\u0665\u0665\u0665\u0665\u0665\u0665\u0665"]
)
def test_a_folder_of_another_name_is_no_state(states, name):
    states.save(5, ARRAYS, {"step": 5, "best_loss": 1.0})
    states.path(5).rename(states.folder / name)
    assert states.steps() == [] and states.load_last(FIELDS) is None
    states.save(6, ARRAYS, {"step": 6, "best_loss": 1.0})
    assert states.steps() == [6]


def metadata(**changes) -> dict:
    return {"fingerprint": {}, "progress": {"step": 6, "best_loss": 1.0}, "files_sha256": {}, **changes}


@pytest.mark.parametrize(
    ("arrays", "found"),
    [
        ({}, metadata()),
        ({"weights.a": np.ones(3, np.float32)}, metadata()),
        ({"weights.a": np.ones(2)}, metadata()),
        (ARRAYS, {}),
        (ARRAYS, metadata(files_sha256=[])),
        (ARRAYS, metadata(progress={})),
        (ARRAYS, metadata(progress={"step": "6", "best_loss": 1.0})),
    ],
)
def test_a_state_that_lacks_something_is_passed_over(states, arrays, found):
    states.save(5, ARRAYS, {"step": 5, "best_loss": 1.0})
    states.save(6, ARRAYS, {"step": 6, "best_loss": 1.0})
    save_checkpoint(states.path(6) / "state.safetensors", arrays, found)
    assert states.load_last(FIELDS)[1]["step"] == 5


def test_a_damaged_state_of_another_run_does_not_stop_a_new_one(states, tmp_path):
    states.save(5, ARRAYS, {"step": 5, "best_loss": 1.0})
    other = StateFolder(tmp_path / "state", {"code": "b"}, 2, [tmp_path / "log"])
    path = states.path(5) / "state.safetensors"
    for content in (path.read_bytes()[:-1], b""):
        path.write_bytes(content)
        assert "belongs to another run and is damaged" in other.refuse_others()
    save_checkpoint(path, ARRAYS, {})
    assert "does not say which run it belongs to" in other.refuse_others()
