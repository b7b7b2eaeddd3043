"""Files that the config names are looked at when the workflow starts, and a mistake names the key."""

from pathlib import Path

import pytest
from support import tiny

from hipgpt.base.errors import UserError
from hipgpt.base.paths import DEFAULTS
from hipgpt.config.reading import load_config, merge, read_config
from hipgpt.config.settings import Config
from hipgpt.pipeline.recipes import check_sources


def load(source: str, vocab_size: int = 300) -> Config:
    changes = {"tokenizer": {"from": source, "vocab_size": vocab_size}}
    return load_config(merge(read_config(DEFAULTS), changes))


def check(source: str, vocab_size: int = 300) -> None:
    check_sources(load(source, vocab_size))


@pytest.fixture
def source(tmp_path, monkeypatch) -> str:
    monkeypatch.chdir(tmp_path)
    tiny.tokenizer().save("source.json")
    return "source.json"


@pytest.mark.parametrize("paths", ["nowhere.txt", ["source.json", "nowhere/*.txt"]])
def test_text_that_does_not_exist_is_refused_before_anything_is_replaced(source, paths):
    def corpus(**more: str) -> Config:
        entry = {"kind": "file", "path": paths, **more}
        return load_config(merge(read_config(DEFAULTS), {"corpora": {"mine": entry}, "corpus": "mine"}))

    with pytest.raises(UserError, match=r"config: corpora.mine.path: 'nowhere.*' matches no file in /.*, expected a"):
        check_sources(corpus())
    check_sources(corpus(sha256="0" * 64))  # a rule of another workflow writes it


def test_a_tokenizer_that_fits_is_accepted(source):
    check(source)
    check(source, vocab_size=400)  # it is padded


def test_a_vocabulary_that_is_too_small_is_refused_with_the_size_of_the_file(source):
    message = (
        "config: tokenizer.from: source.json: has 300 tokens, but tokenizer.vocab_size is 290; "
        "set tokenizer.vocab_size: 300"
    )
    with pytest.raises(UserError) as refused:
        check(source, vocab_size=290)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.json", "nowhere.json: cannot read the tokenizer (No such file or directory); expected a tokenizer"),
        ("folder", "folder: got a folder, expected a file on a disk"),
        ("words.json", "words.json: not a tokenizer.json (Expecting value"),
        ("other.json", "other.json: model: got null, expected a BPE model"),
    ],
)
def test_a_file_that_is_not_a_tokenizer_is_refused(source, name, message):
    Path("folder").mkdir()
    Path("words.json").write_text("to be or not to be")
    Path("other.json").write_text('{"version": "1.0"}')
    with pytest.raises(UserError) as refused:
        check(name)
    assert str(refused.value).startswith(f"config: tokenizer.from: {message}")


def test_a_tokenizer_that_the_workflow_has_taken_over_is_not_read_again_but_must_be_there(source):
    (name,) = {run.tokenizer for run in load(source).runs.values()}
    made = Path("results/corpora/shakespeare", name, "tokenizer.json")
    made.parent.mkdir(parents=True)
    made.touch()
    Path(source).write_text("changed; its stage will read it again")
    check(source)
    Path(source).unlink()
    with pytest.raises(UserError, match="config: tokenizer.from: .*No such file"):
        check(source)
