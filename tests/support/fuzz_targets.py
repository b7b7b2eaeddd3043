"""A fuzz target for each reader of untrusted bytes: how a case is drawn, and how it is read."""

import base64
import functools
import hashlib
import json
import random
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import save

from hipgpt.base.paths import ROOT
from hipgpt.config.huggingface import model_section
from hipgpt.config.reading import read_config
from hipgpt.config.settings import ModelConfig
from hipgpt.data.tokenizer.tokenizer import Tokenizer
from hipgpt.data.tokens import open_split
from hipgpt.gpt.checkpoint import load_model, save_checkpoint
from hipgpt.interchange.pretrained import read_weights, weight_names
from hipgpt.pipeline.sweeps import load_runs
from hipgpt.training.state import StateFolder
from support import tiny
from support.fuzz_archives import (
    archive,
    ask_questions,
    http,
    questions,
    read_archive,
    read_http,
    read_records,
    records,
)
from support.fuzz_workflow import read_plan
from support.mutations import mutated_bytes, mutated_document

Files = dict[str, bytes]  # of a case, by name
TEXT = b"the king and the queen\n" * 40


def shards(draw: random.Random) -> Files:
    header = np.zeros(256, "<i4")
    header[:3] = 20240520, 1, 400
    shard = header.tobytes() + np.random.default_rng(0).integers(0, 300, 400).astype("<u2").tobytes()
    if draw.random() < 0.5:
        shard = mutated_bytes(draw, shard, [])
    entry = {"file": "train_00000.bin", "tokens": 400, "sha256": hashlib.sha256(shard).hexdigest()}
    record = {"version": 1, "tokenizer_sha256": "ab", "splits": {"train": [entry], "validation": [entry]}}
    return {"train_00000.bin": shard, "manifest.json": document(draw, record)}


def read_shards(folder: Path) -> None:
    for split in ("train", "validation"):
        tokens = open_split(folder / "manifest.json", split, "ab", 300)
        assert tokens.windows(np.array([0, max(len(tokens) - 9, 0)]), min(len(tokens), 9)).max(initial=0) < 300


def document(draw: random.Random, content: Any) -> bytes:
    """Return a JSON file, mutated as a document, as bytes, or not at all."""
    kind = draw.random()
    text = json.dumps(mutated_document(draw, content) if kind < 0.6 else content).encode()
    return mutated_bytes(draw, text, []) if kind > 0.8 else text


def checkpoint(draw: random.Random) -> Files:
    model = mutated_document(draw, asdict(tiny.MODEL)) if draw.random() < 0.5 else asdict(tiny.MODEL)
    metadata = {"model": model, "tokenizer_sha256": "ab", "step": 7}
    return {"x.safetensors": safetensors(draw, tiny.draw_arrays(), metadata)}


def safetensors(draw: random.Random, arrays: dict[str, np.ndarray], metadata: Any) -> bytes:
    """Return a file with a right hash, in which arrays or metadata may be wrong, or bytes are mutated."""
    if draw.random() < 0.4:
        name = draw.choice([*arrays])
        wrong = (np.float64, np.int8, np.float16, np.bool_)
        arrays = {
            **arrays,
            name: draw.choice((arrays[name] * np.nan, arrays[name][:-1], arrays[name].astype(draw.choice(wrong)))),
        }
    if draw.random() < 0.3 and isinstance(changed := mutated_document(draw, metadata), dict):
        metadata = changed
    path = Path(tempfile.mkdtemp()) / "x"
    try:
        save_checkpoint(path, arrays, metadata)
        data = path.read_bytes()
    finally:
        shutil.rmtree(path.parent)
    return mutated_bytes(draw, data, []) if draw.random() < 0.5 else data


def read_checkpoint(folder: Path) -> None:
    load_model(folder / "x.safetensors", "ab")


ARRAYS = {"weights.a": np.arange(6, dtype=np.float32).reshape(2, 3), "moments.a": np.ones(3, np.float32)}


def state(draw: random.Random) -> Files:
    copies = {"log": hashlib.sha256(b"x").hexdigest()}
    metadata = {"fingerprint": {"code": "a"}, "progress": {"step": 6, "best_loss": 1.0}, "files_sha256": copies}
    return {"state.safetensors": safetensors(draw, ARRAYS, metadata), "log": b"x"}


def read_state(folder: Path) -> None:
    log = folder / "log"
    for code in ("a", "b"):
        states = StateFolder(folder / "state", {"code": code}, 2, [log])
        if code == "a":
            states.path(6).mkdir(parents=True)
            for name in ("state.safetensors", "log"):
                (folder / name).rename(states.path(6) / name)
            log.write_bytes(b"y")
        states.load_last({name: (array.shape, array.dtype) for name, array in ARRAYS.items()})
        states.refuse_others()


@functools.cache
def directory() -> Files:
    """Return a Hugging Face directory of a small GPT-2."""
    model = ModelConfig(300, 12, 1, 3, 20, 8, "gelu", True, False)
    arrays = tiny.draw_arrays(model)
    stored = {p.theirs: p.of(arrays[p.ours]) for p in weight_names(model)}
    config = {
        "model_type": "gpt2",
        "vocab_size": 300,
        "n_embd": 12,
        "n_layer": 1,
        "n_head": 3,
        "n_positions": 8,
        "n_inner": 20,
    }
    return {"config.json": json.dumps(config).encode(), "model.safetensors": save(stored), "tokenizer.json": b"{}"}


def pretrained(draw: random.Random) -> Files:
    files = directory()
    weights, config = files["model.safetensors"], files["config.json"]
    if draw.random() < 0.6:
        weights = mutated_bytes(draw, weights, [])
    return {**files, "model.safetensors": weights, "config.json": document(draw, json.loads(config))}


def read_pretrained(folder: Path) -> None:
    read_weights(folder, ModelConfig(**model_section(folder)))


@functools.cache
def tokenizer_file() -> Any:
    path = Path(tempfile.mkdtemp()) / "tokenizer.json"
    tiny.tokenizer().save(path)
    text = path.read_bytes()
    shutil.rmtree(path.parent)
    return json.loads(text)


def tokenizer(draw: random.Random) -> Files:
    return {"tokenizer.json": document(draw, tokenizer_file())}


def read_tokenizer(folder: Path) -> None:
    use(Tokenizer.load(folder / "tokenizer.json"))


def use(found: Tokenizer) -> None:
    assert found.decode(found.encode(TEXT)) == TEXT
    assert found.vocab_size and found.sha256 and len(found.byte_counts) == found.vocab_size


def tiktoken(draw: random.Random) -> Files:
    tokens = [bytes([byte]) for byte in range(256)] + [b"th", b"the", b" the", b"in", b"ing"]
    lines = [base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(tokens)]
    if draw.random() < 0.5:
        lines[draw.randrange(len(lines))] = draw.choice(lines)
        draw.shuffle(lines)
    return {"x.tiktoken": mutated_bytes(draw, b"".join(lines), []) if draw.random() < 0.7 else b"".join(lines)}


def read_tiktoken(folder: Path) -> None:
    use(Tokenizer.load(folder / "x.tiktoken"))


@functools.cache
def shipped() -> list[Any]:
    base = read_config(ROOT / "config.yaml")
    return [base, *(read_config(ROOT / "config.yaml", path) for path in sorted((ROOT / "configs").glob("*.yaml")))]


def config(draw: random.Random) -> Files:
    content = draw.choice(shipped())
    text = yaml.safe_dump(mutated_document(draw, content) if draw.random() < 0.8 else content, allow_unicode=True)
    data = text.encode("utf-8", "surrogatepass")
    return {"config.yaml": mutated_bytes(draw, data, []) if draw.random() < 0.3 else data}


def read_runs(folder: Path) -> None:
    for run in load_runs(read_config(folder / "config.yaml")).runs.values():
        assert run.model and run.training and run.tokenizer


TARGETS: dict[str, tuple[Callable[[random.Random], Files], Callable[[Path], None]]] = {
    "shards": (shards, read_shards),
    "checkpoint": (checkpoint, read_checkpoint),
    "state": (state, read_state),
    "pretrained": (pretrained, read_pretrained),
    "tokenizer": (tokenizer, read_tokenizer),
    "tiktoken": (tiktoken, read_tiktoken),
    "archive": (archive, read_archive),
    "records": (records, read_records),
    "questions": (questions, ask_questions),
    "http": (http, read_http),
    "config": (config, read_runs),
    "workflow": (config, read_plan),
}
