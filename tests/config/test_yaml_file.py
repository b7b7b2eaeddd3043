"""A config file says what is wrong in one line: file, line and key, whatever YAML would let through."""

import os
import subprocess
import sys

import pytest
from support import tiny
from support.workflow_copy import ROOT, TINY, Project

from hipgpt.base.errors import UserError
from hipgpt.config.reading import read_config
from hipgpt.config.yaml_file import read_yaml


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: a: this key is given twice, first in line 1; remove one of them"),
        ("training:\n  steps: 5\n  steps: 6\n", "line 3: training.steps: this key is given twice, first in line 2"),
        ("runs: [{a: 1, a: 1}]", "line 1: runs[0].a: this key is given twice, first in line 1"),
        ("'a': 1\n\"a\": 2\n", "line 2: a: this key is given twice"),
        ("training: {seed: " + "9" * 5000 + "}", "line 1: training.seed: got '9999"),
        ("a:\n  when: 2024-13-45\n", "line 2: a.when: got '2024-13-45', which cannot be read (month must be"),
        ("? [a, b]\n: 1\n", "line 1: top level: got a list or a map as a key"),
        ("a: &a [1, *a]\n", "levels once aliases are replaced"),
        ("[" * 5000 + "]" * 5000, "not YAML (maximum recursion depth"),
        (
            "a: &a [x, x, x, x, x, x, x, x, x]\n"
            + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
            "expected a config; remove aliases of aliases",
        ),
        ("a: !!python/object/apply:os.system ['true']", "not YAML (could not determine a constructor"),
    ],
    ids=range(11),
)
def test_a_mistake_names_file_line_and_key(tmp_path, text, message):
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as error:
        read_config(path)
    assert str(error.value).startswith(f"{path}: ") and message in str(error.value) and "\n" not in str(error.value)


def test_keys_of_different_maps_and_merged_keys_may_be_the_same(tmp_path):
    (tmp_path / "x.yaml").write_text("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\n", encoding="utf-8")
    assert read_yaml(tmp_path / "x.yaml") == {"a": {"x": 1, "y": 2}, "b": {"x": 3, "y": 2}}


@pytest.mark.parametrize("name", ["folder", "pipe", "/proc/kmsg", "/dev/zero"])
def test_a_file_that_may_never_end_is_not_opened(tmp_path, name):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="expected a file on a disk"):
        read_config(tmp_path / name)


def test_every_config_of_the_project_is_read():
    for path in [ROOT / "config.yaml", *(ROOT / "configs").glob("*.yaml")]:
        assert read_yaml(path)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return Project(tmp_path_factory.mktemp("project"))


def test_snakemake_refuses_a_key_that_is_given_twice(project):
    (project.folder / "tiny.yaml").write_text("training: {steps: 5}\ntraining: {steps: 6}\n", encoding="utf-8")
    output = project.snakemake("--dry-run", "all", expect=1)
    assert "tiny.yaml: line 2: training: this key is given twice, first in line 1; remove one" in output
    assert "Traceback" not in output


@pytest.mark.parametrize("content", [b"steps: : 5", b"\xff\xfe\0", b"[1, 2]", b"a: &a [*a]", b"text"])
def test_snakemake_names_a_config_file_that_is_no_config(project, content):
    shipped = (project.folder / "config.yaml").read_bytes()
    (project.folder / "config.yaml").write_bytes(content)
    project.write_config(TINY)
    output = project.snakemake("--dry-run", "all", expect=1)
    (project.folder / "config.yaml").write_bytes(shipped)
    assert f"error: {project.folder / 'config.yaml'}: " in output
    assert "Traceback" not in output


def test_snakemake_names_the_key_of_a_corpus_that_may_never_end(project):
    project.write_config({**TINY, "corpora": {"tiny": {**TINY["corpora"]["tiny"], "path": "/proc/kmsg"}}})
    output = project.snakemake("--dry-run", "all", expect=1)
    assert "error: config: corpora.tiny.path: /proc/kmsg: got a file of the system, expected a file" in output
    assert "Traceback" not in output


def test_braces_in_the_name_of_a_tokenizer_are_no_wildcards(project):
    tokenizer = {"vocab_size": 300, "from": "{which} one.json"}
    tiny.tokenizer().save(project.folder / tokenizer["from"])
    project.write_config({**TINY, "tokenizer": tokenizer})
    output = project.snakemake("--dry-run", "all")
    assert "train_tokenizer tiny -which--one-" in output and "Traceback" not in output


def test_without_a_compiler_snakemake_says_so_in_one_line(project, monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    project.write_config(TINY)
    output = project.snakemake("results/corpora/tiny/bpe-290/tokenizer.json", expect=1)
    assert "tiny bpe-290: CXX: got 'no-such-compiler', which is no program here; set it to a C++ compiler" in output
    assert "Traceback" not in output and "InputFunctionException" not in output


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_unicode_shows_escapes(results, encoding):
    program = [sys.executable, "-c", "from hipgpt.cli.main import main; main()"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding}
    for arguments in (["generate", "--prompt", "语é", "--num-tokens", "3"], ["tokenize", "语\né"], ["runs"]):
        done = subprocess.run([*program, *arguments], cwd=results.parent, env=environment, capture_output=True)
        assert (done.returncode, done.stderr) == (0, b"")
        if arguments[0] == "generate":
            assert done.stdout.startswith(b"\\u8bed")
