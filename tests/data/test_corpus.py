"""A corpus: cleaning as a stream, the position of the split, provenance, and refusals."""

import gzip
import hashlib
import io
import itertools
import json
import os
import subprocess
import sys
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hipgpt.base.errors import UserError
from hipgpt.base.paths import ROOT
from hipgpt.data import cleaning, corpus, split

OUTPUTS = ("train.txt", "validation.txt", "provenance.json")
LICENSED = (
    b"The Project Gutenberg EBook of Plays\r\n\r\n*** START OF THE PROJECT GUTENBERG EBOOK PLAYS ***\r\n\r\n\r\n"
    b"Act 1\r\n*** a line of stars ***\r\nAct 2\r\n\r\n"
    b"*** END OF THE PROJECT GUTENBERG EBOOK PLAYS ***\r\nThe licence\r\n"
)


def settings(path, **changes) -> dict:
    return {"kind": "file", "path": str(path), "cleaning": [], "validation_fraction": 0.1, "train_shards": 1} | changes


def build(tmp_path, path, **changes) -> tuple[bytes, bytes, dict]:
    """Return the training text, the validation text and the provenance."""
    corpus.build_corpus("plays", settings(path, **changes), tmp_path / "out", tmp_path / "downloads")
    train, validation, provenance = ((tmp_path / "out" / name).read_bytes() for name in OUTPUTS)
    return train, validation, json.loads(provenance)


def cleaned(text: bytes, *steps: str, block_bytes: int = 1 << 20) -> bytes:
    blocks = (text[start : start + block_bytes] for start in range(0, len(text), block_bytes))
    for step in steps:
        blocks = cleaning.CLEANING[step](blocks)
    return b"".join(blocks)


def test_strip_bom_drops_only_the_mark_at_the_start():
    assert cleaned(b"\xef\xbb\xbfa\xef\xbb\xbf", "strip_bom") == b"a\xef\xbb\xbf"
    assert cleaned(b"ab", "strip_bom") == b"ab"


def test_normalize_newlines_makes_every_line_end_one_lf():
    assert cleaned(b"a\r\nb\rc\nd\r\r\n\r", "normalize_newlines") == b"a\nb\nc\nd\n\n\n"


def test_strip_gutenberg_leaves_the_text_between_the_markers():
    assert cleaned(LICENSED, "normalize_newlines", "strip_gutenberg") == b"Act 1\n*** a line of stars ***\nAct 2\n"
    assert cleaned(b"Act 1\n*** a line of stars ***\n", "strip_gutenberg") == b"Act 1\n*** a line of stars ***\n"


def test_strip_gutenberg_finds_the_footer_of_a_long_text():
    text = LICENSED.replace(b"Act 2", b"line\n" * 100_000)
    assert cleaned(text, "normalize_newlines", "strip_gutenberg", block_bytes=1000).endswith(b"line\n")


@given(st.binary(max_size=60), st.integers(1, 9), st.sampled_from(sorted(cleaning.CLEANING)))
def test_cleaning_does_not_depend_on_the_blocks(text, block_bytes, step):
    text = text.replace(b"\0", b"\r").replace(b"\1", b"\n").replace(b"\2", b"\xef\xbb\xbf")
    for document in (text, LICENSED.replace(b"Act 1", text)):
        assert cleaned(document, step, block_bytes=block_bytes) == cleaned(document, step)


@given(st.lists(st.text("aé語🎭\n", max_size=30), max_size=5), st.floats(0.01, 0.5))
def test_the_split_is_at_a_line_end_or_a_whole_character(lines, fraction):
    text = "\n".join(lines).encode()
    position = split.split_position(io.BytesIO(b"before" + text), 6, len(text), fraction)
    target = int((1 - fraction) * len(text))
    lowest = target - int(fraction * len(text))
    text[:position].decode(), text[position:].decode()
    newline = text.rfind(b"\n", lowest, target)
    assert position == newline + 1 if newline >= 0 else target - 3 <= position <= target


@given(st.binary(max_size=50), st.floats(0.01, 0.99))
def test_the_split_of_any_bytes_is_inside_the_document(text, fraction):
    position = split.split_position(io.BytesIO(text), 0, len(text), fraction)
    assert 0 <= position <= int((1 - fraction) * len(text))


def test_the_split_looks_for_a_line_end_in_more_than_one_block(monkeypatch):
    monkeypatch.setattr(split, "BLOCK", 10)
    assert split.split_position(io.BytesIO(b"a" * 250 + b"\n" + b"a" * 749), 0, 1000, 0.4) == 251


def test_each_document_gives_its_first_part_to_training_and_its_last_to_validation(tmp_path):
    for name, lines in (("b", 50), ("a", 100)):
        (tmp_path / f"{name}.txt").write_bytes(b"".join(b"%s %03d\n" % (name.encode(), line) for line in range(lines)))
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress(b"c" * 10))
    (tmp_path / "empty.txt").touch()
    train, validation, provenance = build(tmp_path, tmp_path / "*.txt*")
    at_train = at_validation = 0
    texts = {}
    for document in provenance["documents"]:
        size, split_at = document["text_bytes"], document["split_at"]
        rest = size - split_at
        text = train[at_train : at_train + split_at] + validation[at_validation : at_validation + rest]
        assert hashlib.sha256(text).hexdigest() == document["sha256"]
        texts[document["name"]] = (text[:split_at], text[split_at:])
        at_train, at_validation = at_train + split_at, at_validation + rest
    assert (at_train, at_validation) == (len(train), len(validation))
    assert list(texts) == ["a.txt", "b.txt", "c.txt", "empty.txt"]
    assert texts["a.txt"][1] == b"".join(b"a %03d\n" % line for line in range(90, 100))
    assert texts["c.txt"] == (b"c" * 9, b"c")


def test_provenance_records_source_hash_bytes_and_cleaning(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(b"line\r\n" * 100)
    train, validation, provenance = build(tmp_path, path, cleaning=["normalize_newlines"])
    document = provenance.pop("documents")[0]
    assert provenance == {
        "corpus": "plays",
        "source": str(path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "source_bytes": 600,
        "cleaning": ["normalize_newlines"],
        "validation_fraction": 0.1,
    }
    assert document["text_bytes"] == len(train + validation) == 500
    assert document["split_at"] == len(train) == 450


def test_without_cleaning_every_byte_arrives(tmp_path):
    text = "".join(map(chr, range(1, 0x2000))).encode()
    (tmp_path / "text.txt").write_bytes(text)
    train, validation, _ = build(tmp_path, tmp_path / "text.txt")
    assert train + validation == text


def test_a_corpus_larger_than_memory_streams_through(tmp_path):
    path = tmp_path / "text.txt"
    with open(path, "wb") as file:
        file.writelines(itertools.repeat(b"To be, or not to be\r\n" * 50_000, 32))
    tracemalloc.start()
    build_settings = settings(path, cleaning=sorted(cleaning.CLEANING))
    corpus.build_corpus("plays", build_settings, tmp_path / "out", tmp_path / "downloads")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 << 20 < path.stat().st_size


def test_a_file_with_another_hash_is_refused_and_stays(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(b"text\n" * 100)
    with pytest.raises(UserError, match=f"corpus plays: {path}: sha256 is .*, expected {'0' * 64}"):
        build(tmp_path, path, sha256="0" * 64)
    assert path.exists()


def test_a_pattern_without_a_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"corpus plays: path '.*/\*.txt' matches no file"):
        build(tmp_path, tmp_path / "*.txt")


def test_a_text_too_short_to_split_is_refused_and_nothing_is_left(tmp_path):
    (tmp_path / "text.txt").write_bytes(b"a")
    with pytest.raises(UserError, match="its 1 bytes leave the training split empty at validation_fraction: 0.1"):
        build(tmp_path, tmp_path / "text.txt")
    assert list((tmp_path / "out").iterdir()) == []


def test_an_empty_text_is_refused(tmp_path):
    (tmp_path / "text.txt").touch()
    with pytest.raises(UserError, match="its 0 bytes leave the training split empty"):
        build(tmp_path, tmp_path / "text.txt")


def test_a_failed_build_leaves_the_earlier_one_whole(tmp_path):
    (tmp_path / "text.txt").write_bytes(b"text\n" * 100)
    before = build(tmp_path, tmp_path / "text.txt")
    (tmp_path / "text.txt.gz").write_bytes(gzip.compress(b"text\n" * 100)[:-9])
    with pytest.raises(UserError, match="corpus plays: .*text.txt.gz: damaged"):
        build(tmp_path, tmp_path / "text.txt*")
    (tmp_path / "text.txt.gz").unlink()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*OUTPUTS, "documents.bin"}
    assert (tmp_path / "out" / "train.txt").read_bytes() == before[0]


def test_the_script_runs_by_hand_and_shows_a_mistake_in_one_line(tmp_path):
    (tmp_path / "text.txt").write_bytes(b"text\n" * 100)

    def run(path: str) -> subprocess.CompletedProcess:
        arguments = ["--name", "plays", "--settings", json.dumps(settings(path)), "--output", "out"]
        command = [sys.executable, ROOT / "workflow" / "scripts" / "download.py", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    assert run("text.txt").returncode == 0
    assert (tmp_path / "out" / "train.txt").stat().st_size == 450
    failed = run("nothing.txt")
    assert failed.returncode == 1
    assert failed.stderr == f"error: corpus plays: path 'nothing.txt' matches no file in {tmp_path}\n"
