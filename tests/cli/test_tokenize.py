"""`hipgpt tokenize`: it finds the tokenizer of a run as soon as that exists."""

import json

import pytest
import yaml
from support import tiny

CONFIG = {"corpora": {"plays": {"kind": "file", "path": "x"}}, "corpus": "plays", "tokenizer": {"vocab_size": 300}}
PATH = "results/corpora/plays/bpe-300/tokenizer.json"
IDS = " ".join(map(str, tiny.tokenizer().encode("to be").tolist())) + "\n"


@pytest.fixture
def project(hipgpt, tmp_path, monkeypatch):
    """A project with a config, in which the tokenizer of the default run is trained and nothing after it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    (tmp_path / PATH).parent.mkdir(parents=True)
    tiny.tokenizer().save(tmp_path / PATH)
    return tmp_path


def test_the_config_says_where_the_tokenizer_of_a_run_is(hipgpt, project):
    assert hipgpt("tokenize", "to be", "--ids") == (None, IDS, "")


def test_a_run_in_progress_that_the_config_lacks_names_its_tokenizer(hipgpt, project):
    (tiny.save_run(project / "results", "other") / "model/tokenizer.json").unlink()
    (project / PATH).parent.rename(project / "results/corpora/plays/mine")
    assert hipgpt("tokenize", "to be", "--ids", "--run", "other") == (None, IDS, "")


def test_a_tokenizer_that_is_not_trained_yet_is_named_with_the_others(hipgpt, project):
    (project / PATH).parent.rename(project / "results/corpora/plays/bpe-400")
    others = PATH.replace("300", "400")
    assert hipgpt("tokenize", "to be")[0] == (
        f"error: {PATH}: missing, because run 'default' has no tokenizer yet; run snakemake, or name one by "
        f"--tokenizer; found: {others}"
    )
    assert hipgpt("tokenize", "to be", "--tokenizer", others, "--ids")[1] == IDS


@pytest.mark.parametrize("name", ["othr", "../runs"])
def test_an_unknown_run_is_named(hipgpt, project, name):
    status, output, _ = hipgpt("tokenize", "to be", "--run", name)
    assert status.startswith(f"error: no run {name!r} in results/runs") and output == ""
    assert status.endswith(f"; name one by --tokenizer; found: {PATH}")


def test_a_damaged_record_is_named(hipgpt, project):
    folder = tiny.save_run(project / "results")
    (folder / "model/tokenizer.json").unlink()
    (folder / "run.json").write_text(json.dumps({"tokenizer_sha256": 5}))
    assert hipgpt("tokenize", "x")[0].startswith("error: results/runs/default/run.json: tokenizer_sha256: got '5', ")
