"""docs/security.md: no pickle, no eval, no shell string from the config; what is untrusted reaches and takes little."""

import ast
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from support import tiny
from support.workflow_copy import ROOT, TINY, Project

from hipgpt.base.errors import UserError
from hipgpt.config.huggingface import model_section
from hipgpt.config.settings import ModelConfig
from hipgpt.data.tokenizer.tokenizer import MOST_BYTES, Tokenizer
from hipgpt.data.tokens import open_split
from hipgpt.gpt.checkpoint import load_model, save_checkpoint, save_tensors
from hipgpt.interchange.huggingface import export_huggingface
from hipgpt.interchange.pretrained import read_weights
from hipgpt.reports.provenance import write_record
from hipgpt.reports.runs import run_row

SOURCES = [path for folder in ("hipgpt", "workflow", "docs", "bench") for path in sorted((ROOT / folder).rglob("*.py"))]
MODULES = {"pickle", "cPickle", "dill", "joblib", "marshal", "shelve"}
CALLS = {"eval", "exec", "__import__", "os.system", "os.popen", "torch.load", "np.load", "yaml.unsafe_load"}
NUMBERS = {"threads", "params.stride", "params.train_shards"}  # the schema lets only numbers through
COMMAND = {"params.script", "params.starter"}  # quoted, or constant, in workflow/rules/common.smk
EVIL = '\'; touch pwned; echo "$(touch pwned)" `touch pwned` {input} {{x}} %s ..\\'


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def faults(source: str) -> list[str]:
    """Return what a Python source does that no source of ours may."""
    tree, found = ast.parse(source), []
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) else []
        found += [name for name in names if name.split(".")[0] in MODULES]
    for name, call in calls(tree):
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        unsafe_yaml = name == "yaml.load" and "Safe" not in keywords.get("Loader", "")
        if name in CALLS or unsafe_yaml or keywords.get("shell", "False") != "False" or "allow_pickle" in keywords:
            found.append(ast.unparse(call))
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_source_evaluates_unpickles_or_starts_a_shell(path):
    assert faults(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from pickle import loads", "eval('1')", "subprocess.run('ls', shell=True)", "os.system('ls')",
        "np.load(x)", "numpy.load(x, allow_pickle=True)", "yaml.load(x)", "torch.load(x)",
    ],
)  # fmt: skip
def test_such_a_source_would_be_seen(source):
    assert faults(source)


def test_every_value_in_the_workflow_s_commands_is_quoted():
    text = (ROOT / "Snakefile").read_text()
    commands = re.findall(r"    shell:\n((?:        .*\n)+)", text)
    assert len(commands) == text.count("shell:\n")
    fields = [field for command in commands for field in re.findall(r"\{([^}]*)\}", command)]
    assert len(fields) > 50
    assert [field for field in fields if not field.endswith(":q") and field not in NUMBERS | COMMAND] == []


@pytest.mark.slow
def test_values_of_the_config_reach_the_scripts_as_they_are_and_no_shell(tmp_path):
    project = Project(tmp_path / "project")
    (project.folder / "texts").rename(project.folder / "te'xts; touch pwned")
    corpora = {"tiny": {**TINY["corpora"]["tiny"], "path": "te'xts; touch pwned/*.txt"}}
    sampling = {"prompts": [EVIL], "num_tokens": 3}
    training = {**TINY["training"], "sample_prompt": EVIL}
    project.write_config({**TINY, "corpora": corpora, "sampling": sampling, "training": training})
    project.snakemake("results/runs/default/samples.txt")
    assert EVIL in (project.folder / "results/runs/default/samples.txt").read_text()
    assert not list(project.folder.rglob("pwned"))


def manifest(folder: Path, **changes) -> Path:
    """Write tokens and their manifest, with changes in the entry of the training split."""
    header = np.zeros(256, "<i4")
    header[:3] = 20240520, 1, 4
    data = header.tobytes() + np.arange(4, dtype="<u2").tobytes()
    (folder / "train_00000.bin").write_bytes(data)
    (folder.parent / "outside.bin").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    entry = {"file": "train_00000.bin", "tokens": 4, "sha256": digest, **changes}
    record = {"version": 1, "tokenizer_sha256": "ab", "splits": {"train": [entry], "validation": []}}
    (folder / "manifest.json").write_text(json.dumps(record))
    return folder / "manifest.json"


def test_a_manifest_names_files_beside_it_only(tmp_path):
    folder = tmp_path / "tokens"
    folder.mkdir()
    assert len(open_split(manifest(folder), "train")) == 4
    for name in (None, 5):
        with pytest.raises(
            UserError, match=r"manifest.json: splits.train\[0\].file: got .*, expected str; delete it and"
        ):
            open_split(manifest(folder, file=name), "train")
    for name in ("../outside.bin", str(tmp_path / "outside.bin"), ""):
        with pytest.raises(UserError, match="manifest.json: its train entries are not whole; delete it and"):
            open_split(manifest(folder, file=name), "train")
    with pytest.raises(UserError, match="its validation entries are not whole"):
        open_split(manifest(folder), "validation")


def changed_tokenizer(folder: Path, change) -> Path:
    path = folder / "tokenizer.json"
    tiny.tokenizer().save(path)
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize("wrong", [1 << 40, -1, True, "299"])
def test_an_added_token_s_id_is_bounded_before_a_table_is_made_for_it(tmp_path, wrong):
    path = changed_tokenizer(tmp_path, lambda document: document["added_tokens"][0].update(id=wrong))
    with pytest.raises(UserError, match=r"added_tokens\[0\].id: got .*, expected an id from 0 to"):
        Tokenizer.load(path)


def test_an_added_token_s_content_is_text(tmp_path):
    path = changed_tokenizer(tmp_path, lambda document: document["added_tokens"][0].update(content=[1]))
    with pytest.raises(UserError, match=r"added_tokens\[0\]: got .*, expected an object with id and content"):
        Tokenizer.load(path)


def test_a_tokenizer_nested_without_end_or_too_large_is_refused(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(b"[" * 1_000_000)
    with pytest.raises(UserError, match="not a tokenizer.json"):
        Tokenizer.load(path)
    with open(path, "wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(UserError, match="expected at most 268,435,456; it is not a tokenizer"):
        Tokenizer.load(path)


@pytest.mark.parametrize(
    "changes",
    [{"num_layers": 1 << 40}, {"num_layers": "2"}, {"embed_dim": 0}, {"embed_dim": True}, {"more": 1}],
    ids=str,
)
def test_a_checkpoint_s_sizes_are_checked_before_its_table_is_made(tmp_path, changes):
    metadata = {"model": {**asdict(tiny.MODEL), **changes}, "tokenizer_sha256": "ab"}
    save_checkpoint(tmp_path / "x.safetensors", tiny.draw_arrays(), metadata)
    with pytest.raises(UserError, match="x.safetensors: its metadata"):
        load_model(tmp_path / "x.safetensors", "ab")


HOSTILE = [None, True, -1, 0, 1 << 70, 1e308, float("inf"), "", "../x", [], [[]], [None], {}, {"a": 1}]


def changed(document: object) -> Iterator[object]:
    """Yield the document with each of its places, the first ones of long lists and maps, taken by a hostile value."""
    yield from HOSTILE
    inside = (
        document.items() if isinstance(document, dict) else enumerate(document if isinstance(document, list) else [])
    )
    for key, value in list(inside)[:12]:
        for other in changed(value):
            copied = document.copy()
            copied[key] = other
            yield copied
        if isinstance(document, dict):
            yield {name: kept for name, kept in document.items() if name != key}


def corpus_of(folder: Path) -> Path:
    record = {"corpus": "c", "source": "s", "sha256": "ab"}
    (folder / "provenance.json").write_text(json.dumps(record))
    return folder / "provenance.json"


def huggingface_of(folder: Path) -> Path:
    export_huggingface(tiny.save_run(folder), tiny.tokenizer(), folder / "hf", "a card")
    return folder / "hf" / "config.json"


def read_pretrained(path: Path) -> None:
    read_weights(path.parent, ModelConfig(**model_section(path.parent)))


# for each JSON file that is read: how to make one in a folder, and what reads it
DOCUMENTS = {
    "manifest.json": (manifest, lambda path: open_split(path, "train", "ab")),
    "provenance.json of a run": (
        corpus_of,
        lambda path: write_record(path.with_name("r"), {}, FINGERPRINT, DEVICE, path, 1),
    ),
    "run.json": (lambda folder: tiny.save_run(folder) / "run.json", lambda path: run_row(path.parent)),
    "tokenizer.json": (lambda folder: changed_tokenizer(folder, lambda _: None), Tokenizer.load),
    "config.json": (huggingface_of, read_pretrained),
}
DEVICE = SimpleNamespace(name="cpu", compiler="c++ 12")
FINGERPRINT = {"code": "", "tokenizer_sha256": "", "data_sha256": "", "pretrained_sha256": None}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_whatever_stands_in_a_json_file_is_read_or_refused_in_one_line(tmp_path, name):
    make, read = DOCUMENTS[name]
    (tmp_path / "folder").mkdir()
    path = make(tmp_path / "folder")
    refused = 0
    for document in [*changed(json.loads(path.read_bytes())), "[" * 100_000]:
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        try:
            read(path)
        except UserError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 20


@pytest.mark.parametrize("metadata", [*HOSTILE, {"sha256": "ab", "content": []}])
def test_whatever_stands_in_a_checkpoint_s_metadata_is_refused(tmp_path, metadata):
    save_tensors(tmp_path / "x.safetensors", tiny.draw_arrays(), {"hipgpt": json.dumps(metadata)})
    with pytest.raises(UserError, match="x.safetensors: "):
        load_model(tmp_path / "x.safetensors", "ab")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["a:b", "a b", "naïve", "quote'", "{braces}", "$HOME", 'double"', "new\nline", os.fsdecode(b"\xff")],
    ids=range(9),
)
def test_the_workflow_runs_its_own_package_wherever_the_checkout_is(tmp_path, name):
    """PYTHONPATH is split at colons, so a checkout could not be named there; another hipgpt there must not run."""
    decoy = tmp_path / "decoy" / "hipgpt"
    decoy.mkdir(parents=True)
    (decoy / "__init__.py").write_text("raise SystemExit('another hipgpt was imported')\n")
    project = Project(tmp_path / name / "project")
    project.environment = lambda: {**os.environ, "PYTHONPATH": str(decoy.parent)}
    project.snakemake("results/corpora/tiny/bpe-290/tokenizer.json")
    assert (project.folder / "results/corpora/tiny/bpe-290/tokenizer.json").exists()


def test_a_script_that_gets_another_package_stops(tmp_path):
    project = Project(tmp_path / "project")
    other = tmp_path / "other"
    shutil.copytree(project.folder / "hipgpt", other / "hipgpt")
    program = f"import sys; sys.path.insert(0, {str(other)!r}); import hipgpt; import _package"
    scripts = project.folder / "workflow" / "scripts"
    done = subprocess.run([sys.executable, "-c", program], cwd=scripts, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {other / 'hipgpt'}: this hipgpt was imported, expected {project.folder}")
