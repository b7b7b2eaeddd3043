"""Shards: they hold the tokens of each document in order, in llm.c's format, and damage is refused by name."""

import json
import os
import subprocess
import sys
from itertools import accumulate, pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.corpora import write_corpus, write_shards

from hipgpt.base.errors import UserError
from hipgpt.base.files import sha256_of
from hipgpt.base.paths import ROOT
from hipgpt.data import shards, tokens
from hipgpt.data.shards import write_shard
from hipgpt.data.split import ROW
from hipgpt.data.tokenizer.pretokenize import PATTERNS
from hipgpt.data.tokenizer.tokenizer import Tokenizer, train
from hipgpt.data.tokens import Tokens, open_split

TEXT = "".join(f"Enter Falstaff, number {number}; exeunt élan 語!\n" for number in range(300)).encode()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train([TEXT], 320)


def byte_tokenizer(vocab_size: int) -> SimpleNamespace:
    """Return a tokenizer whose tokens are bytes, with a vocabulary of the requested size."""

    def encode(texts: list[bytes]) -> list[np.ndarray]:
        return [np.frombuffer(text, np.uint8).astype(np.uint32) for text in texts]

    return SimpleNamespace(vocab_size=vocab_size, end_of_text=vocab_size - 1, sha256="none", encode_ordinary=encode)


def everything(tokens: Tokens) -> list[int]:
    return tokens.windows(np.zeros(1, np.int64), len(tokens))[0].tolist()


@pytest.fixture
def written(tmp_path, tokenizer) -> Path:
    """Write two shards of training tokens and one of validation tokens; return the manifest."""
    write_shards(write_corpus(tmp_path / "corpus", (TEXT, TEXT[:1000])), tokenizer, tmp_path, 2)
    return tmp_path / "manifest.json"


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("block", [1, 100, 1 << 20])
def test_shards_hold_each_document_after_end_of_text_however_they_are_cut(
    tmp_path, monkeypatch, tokenizer, count, block
):
    monkeypatch.setattr(shards, "BLOCK", block)
    documents = [(TEXT, TEXT[:50]), (b"", b""), (b"word" * 50, b"rest"), (b"", b"tail"), (TEXT[7:5000], b"")]
    write_shards(write_corpus(tmp_path / "corpus", *documents), tokenizer, tmp_path, count)
    for split, parts in zip(("train", "validation"), zip(*documents, strict=True), strict=True):
        expected = [[tokenizer.end_of_text, *tokenizer.encode(part).tolist()] for part in parts if part]
        assert everything(open_split(tmp_path / "manifest.json", split)) == sum(expected, [])


def test_shards_are_of_about_equal_bytes(tmp_path, tokenizer):
    documents = [(TEXT[: 40 * number], b"validation") for number in range(1, 100)]
    corpus = write_corpus(tmp_path / "corpus", *documents)
    write_shards(corpus, tokenizer, tmp_path, 5)
    entries = json.loads((tmp_path / "manifest.json").read_text())["splits"]["train"]
    sizes = [entry["bytes_of_text"] for entry in entries]
    assert sum(sizes) == (corpus / "train.txt").stat().st_size
    assert max(sizes) - min(sizes) < 100


def test_no_more_than_a_block_and_a_word_is_encoded_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "BLOCK", 100)
    sizes = []
    tokenizer = byte_tokenizer(257)
    encode = tokenizer.encode_ordinary
    tokenizer.encode_ordinary = lambda texts: sizes.append(sum(map(len, texts))) or encode(texts)
    write_shards(write_corpus(tmp_path / "corpus", (TEXT, TEXT)), tokenizer, tmp_path, 1)
    assert sum(sizes) == 2 * len(TEXT)
    assert max(sizes) < 120


@pytest.mark.parametrize(("vocab_size", "version", "dtype"), [(65536, 1, "<u2"), (65537, 2, "<u4")])
def test_a_shard_is_a_header_of_256_int32_and_then_the_tokens(tmp_path, vocab_size, version, dtype):
    corpus = write_corpus(tmp_path / "corpus", (b"ab", b"c"))
    write_shards(corpus, byte_tokenizer(vocab_size), tmp_path, 1)
    content = (tmp_path / "train_00000.bin").read_bytes()
    assert np.frombuffer(content[:1024], "<i4").tolist() == [20240520, version, 3, *[0] * 253]
    assert np.frombuffer(content[1024:], dtype).tolist() == [vocab_size - 1, ord("a"), ord("b")]
    tokens = open_split(tmp_path / "manifest.json", "train")
    assert everything(tokens) == [vocab_size - 1, ord("a"), ord("b")]


def test_the_manifest_counts_tokens_and_names_tokenizer_and_corpus(written, tokenizer):
    manifest = json.loads(written.read_text())
    assert manifest["tokenizer_sha256"] == tokenizer.sha256
    assert manifest["vocab_size"] == 320
    assert manifest["corpus_sha256"] == sha256_of(written.parent / "corpus" / "provenance.json")
    assert [entry["file"] for entry in manifest["splits"]["train"]] == ["train_00000.bin", "train_00001.bin"]
    for split in ("train", "validation"):
        for entry in manifest["splits"][split]:
            assert (written.parent / entry["file"]).stat().st_size == 1024 + 2 * entry["tokens"]


def test_writing_twice_gives_the_same_bytes(written, tokenizer):
    before = {path: path.read_bytes() for path in written.parent.glob("*.*")}
    write_shards(written.parent / "corpus", tokenizer, written.parent, 2)
    assert {path: path.read_bytes() for path in written.parent.glob("*.*")} == before


def test_another_tokenizer_is_refused_with_both_hashes(written, tokenizer):
    with pytest.raises(UserError, match=f"sha256 {tokenizer.sha256}, but the one in use has {'0' * 64}"):
        open_split(written, "train", "0" * 64)
    assert len(open_split(written, "train", tokenizer.sha256))


def altered(position: int, value: int):
    def alter(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[position : position + 4] = value.to_bytes(4, "little")
        path.write_bytes(content)

    return alter


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "this shard is missing"),
        (lambda path: os.truncate(path, 2000), "truncated: the shard's size in bytes is 2000, expected"),
        (lambda path: os.truncate(path, 0), "truncated: the shard's size in bytes is 0, expected"),
        (lambda path: path.write_bytes(path.read_bytes() + b"more"), "altered: the shard's size in bytes is"),
        (altered(0, 5), "altered: the shard's magic number is 5, expected 20240520"),
        (altered(4, 2), "altered: the shard's version is 2, expected 1"),
        (altered(8, 77), "altered: the shard's number of tokens is 77, expected"),
        (altered(1500, 0), "altered: the shard's sha256 is"),
    ],
)
def test_a_damaged_shard_is_refused_by_name(written, damage, message):
    damage(written.parent / "train_00001.bin")
    with pytest.raises(UserError, match=f"train_00001.bin: {message}"):
        open_split(written, "train")
    assert len(open_split(written, "validation"))


@pytest.mark.parametrize(("content", "message"), [(None, "no such file"), ("{", "not JSON")])
def test_a_damaged_manifest_is_refused_by_name(tmp_path, content, message):
    if content:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(UserError, match=f"manifest.json: {message}"):
        open_split(tmp_path / "manifest.json", "train")


def test_a_text_that_documents_bin_does_not_describe_is_refused(tmp_path, tokenizer):
    corpus = write_corpus(tmp_path / "corpus", (TEXT, TEXT))
    (corpus / "validation.txt").write_bytes(TEXT[1:])
    with pytest.raises(UserError, match=f"validation.txt: {len(TEXT) - 1} bytes, but documents.bin says {len(TEXT)}"):
        write_shards(corpus, tokenizer, tmp_path, 1)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (None, "documents.bin: 0, expected text and rows of 32 bytes"),
        (b"x" * 33, "documents.bin: 33, expected text and rows of 32 bytes"),
        (ROW.pack(0, 2**64 - 1, 0, 4), "its documents are not one after the other"),
        (ROW.pack(3, 2, 0, 4), "its documents are not one after the other"),
        (ROW.pack(0, 3, 0, 4) + ROW.pack(2, 4, 4, 4), "its documents are not one after the other"),
        (ROW.pack(0, 2, 0, 4), "train.txt: 4 bytes, but documents.bin says 2"),
    ],
)
def test_damaged_borders_of_documents_are_refused(tmp_path, tokenizer, rows, message):
    corpus = write_corpus(tmp_path / "corpus", (b"text", b"more"))
    (corpus / "documents.bin").unlink()
    if rows:
        (corpus / "documents.bin").write_bytes(rows)
    with pytest.raises(UserError, match=f"{message}.*; delete both and run the download stage"):
        write_shard(corpus, tokenizer, tmp_path / "train_00000.bin", 1)


def test_no_text_becomes_the_token_between_documents(tmp_path, tokenizer):
    text = b"a <|endoftext|> b\n"
    write_shards(write_corpus(tmp_path / "corpus", (text, b"c"), (text, b"d")), tokenizer, tmp_path, 1)
    found = np.array(everything(open_split(tmp_path / "manifest.json", "train")))
    borders = found == tokenizer.end_of_text
    assert borders.sum() == 2 and borders[0]
    assert tokenizer.decode(found[~borders]) == 2 * text


def test_one_shard_is_written_alone_and_a_name_of_none_is_refused(tmp_path, tokenizer, written):
    alone = tmp_path / "alone" / "train_00001.bin"
    write_shard(written.parent / "corpus", tokenizer, alone, 2)
    assert alone.read_bytes() == (written.parent / alone.name).read_bytes()
    with pytest.raises(UserError, match="train_00002.bin: expected a name from train_00000.bin to train_00001.bin"):
        write_shard(written.parent / "corpus", tokenizer, alone.with_name("train_00002.bin"), 2)


def test_more_shards_than_the_text_can_be_cut_into_are_refused(tmp_path, tokenizer):
    corpus = write_corpus(tmp_path / "corpus", (b"three short words", b"validation"))
    with pytest.raises(UserError, match="train.txt: 17 bytes cannot be cut into 4 shards; lower train_shards"):
        write_shards(corpus, tokenizer, tmp_path, 4)


def test_a_shard_that_its_header_cannot_count_is_refused(tmp_path, monkeypatch, tokenizer):
    monkeypatch.setattr(shards, "MOST_TOKENS", 100)
    corpus = write_corpus(tmp_path / "corpus", (TEXT, TEXT))
    with pytest.raises(UserError, match="train_00000.bin: more than 100 tokens.* raise train_shards"):
        write_shards(corpus, tokenizer, tmp_path, 1)
    assert not (tmp_path / "train_00000.bin").exists()


@settings(deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=5), st.data())
def test_windows_read_across_shards(lengths, data):
    bounds = list(accumulate(lengths, initial=0))
    whole = np.arange(bounds[-1], dtype=np.uint16)
    tokens = Tokens([whole[begin:end] for begin, end in pairwise(bounds)])
    length = data.draw(st.integers(1, len(whole)))
    starts = data.draw(st.lists(st.integers(0, len(whole) - length), min_size=1, max_size=5))
    found = tokens.windows(np.array(starts), length)
    assert found.dtype == np.int32
    assert found.tolist() == [list(range(start, start + length)) for start in starts]


def test_the_script_runs_by_hand_and_shows_a_mistake_in_one_line(tmp_path, tokenizer):
    write_corpus(tmp_path / "corpus", (TEXT, TEXT))
    tokenizer.save(tmp_path / "tokenizer.json")

    def run(script: str, output: str, train_shards: int) -> subprocess.CompletedProcess:
        options = f"--corpus corpus --tokenizer tokenizer.json --output {output} --train-shards {train_shards}"
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, ROOT / "workflow" / "scripts" / script, *options.split()]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    for shard in ("train_00000", "validation_00000"):
        assert run("tokenize_corpus.py", f"out/{shard}.bin", 1).returncode == 0
    assert run("write_manifest.py", "out", 1).returncode == 0
    assert len(open_split(tmp_path / "out" / "manifest.json", "train", tokenizer.sha256))
    failed = run("tokenize_corpus.py", "out/train_00000.bin", 100_000)
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: corpus/train.txt: ")
    assert failed.stderr.count("\n") == 1


@pytest.mark.parametrize("pattern", PATTERNS)
def test_shards_are_the_same_bytes_for_any_number_of_threads_and_pattern(tmp_path, monkeypatch, pattern):
    monkeypatch.setattr(shards, "BLOCK", 50)
    text = TEXT + b'He said: "So?"\r\n\r\n "No!!"\n1234567\n \n\tend.\n' * 40
    tokenizer = train([text], 300, pattern)
    corpus = write_corpus(tmp_path / "corpus", (text, text[:500]))
    written = []
    for threads in (1, 2, 3, 8):
        output = tmp_path / str(threads)
        output.mkdir()
        write_shards(corpus, tokenizer, output, 3, threads)
        written.append({path.name: path.read_bytes() for path in output.iterdir()})
    assert all(files == written[0] for files in written)
    found = everything(open_split(tmp_path / "1" / "manifest.json", "train"))
    assert found == [tokenizer.end_of_text, *tokenizer.encode(text).tolist()]


@pytest.mark.parametrize(("position", "id"), [(0, 290), (1234, 1000), (-1, 65535)])
def test_an_id_that_the_vocabulary_lacks_is_refused_by_file_and_position(tmp_path, monkeypatch, position, id):
    monkeypatch.setattr(tokens, "BLOCK", 100)
    tokenizer = byte_tokenizer(257)
    write_shards(write_corpus(tmp_path / "corpus", (TEXT, TEXT)), tokenizer, tmp_path, 1)
    path, manifest = tmp_path / "train_00000.bin", tmp_path / "manifest.json"
    stored = np.fromfile(path, "<u2")
    position %= len(stored) - 512
    stored[512 + position] = id
    stored.tofile(path)
    record = json.loads(manifest.read_text())
    record["splits"]["train"][0]["sha256"] = sha256_of(path)
    manifest.write_text(json.dumps(record))
    with pytest.raises(
        UserError, match=f"train_00000.bin: token {position:,}: got the id {id}, expected less than .* 257"
    ):
        open_split(manifest, "train", tokenizer.sha256, tokenizer.vocab_size)
    assert len(open_split(manifest, "validation", tokenizer.sha256, tokenizer.vocab_size))
