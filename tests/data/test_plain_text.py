"""Only UTF-8 text becomes a corpus: the message names another format, or the position of a bad byte."""

import gzip
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hipgpt.base.errors import UserError
from hipgpt.data.corpus import build_corpus
from hipgpt.data.plain_text import MAGIC, plain_text

RECORDS = "".join(json.dumps({"text": f"line {i}"}) + "\n" for i in range(9)).encode()


def settings(path) -> dict:
    return {"kind": "file", "path": str(path), "cleaning": [], "validation_fraction": 0.5}


@pytest.mark.parametrize(
    ("name", "content", "got"),
    [
        *((f"docs.{number}", magic + b"words " * 99, kind) for number, (magic, kind) in enumerate(MAGIC.items())),
        ("docs.txt", RECORDS, "JSON lines"),
        ("docs.txt.gz", gzip.compress(RECORDS), "JSON lines"),
        ("utf-16.txt", "some words\n".encode("utf-16") * 9, "UTF-16"),
        ("utf-16-le.txt", "some words\n".encode("utf-16-le") * 9, "a zero byte at 1"),
        ("latin1.txt", "naïve words\n".encode("latin1"), "the byte 0xEF at 2"),
        ("cut.txt", "words\nnaï".encode()[:-1], "the byte 0xC3 at 8"),
    ],
)
def test_a_corpus_of_another_format_is_refused_by_name(tmp_path, name, content, got):
    (tmp_path / name).write_bytes(content)
    message = f"corpus mine: {re.escape(str(tmp_path / name))}: got {got}.*, expected UTF-8 text; "
    with pytest.raises(UserError, match=message):
        build_corpus("mine", settings(tmp_path / name), tmp_path / "out", tmp_path)
    assert not (tmp_path / "out" / "provenance.json").exists()


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")), st.integers(1, 5))
def test_text_passes_unchanged_however_it_is_cut(text, size):
    content = ("text " + text).encode()
    blocks = [content[i : i + size] for i in range(0, len(content), size)]
    assert b"".join(plain_text("a.txt", iter(blocks))) == content


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=70), st.integers(1, 5))
def test_a_bad_byte_is_named_by_its_position_however_the_text_is_cut(text, size):
    content = ("text " + text.replace("\0", "") + " ").encode()
    damaged = content + b"\xff" + content
    blocks = iter([damaged[i : i + size] for i in range(0, len(damaged), size)])
    with pytest.raises(UserError, match=f"the byte 0xFF at {len(content):,}, expected UTF-8"):
        list(plain_text("a.txt", blocks))


def test_one_line_of_json_or_braces_is_text():
    for content in (b'{"a": 1}', b'{"a": 1}\nand words', b"{not json}\n{nor this}\n", b"[1]\n[2]\n"):
        assert b"".join(plain_text("a.txt", iter([content]))) == content
