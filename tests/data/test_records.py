"""Records of JSON lines and Parquet: each is a document, and damage is named by file and line."""

import bz2
import gzip
import hashlib
import json
import lzma
import re
import sys
import tracemalloc

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from support import tiny
from support.corpora import write_shards

from hipgpt.base.errors import UserError
from hipgpt.data import json_lines as reader
from hipgpt.data.corpus import build_corpus
from hipgpt.data.json_lines import BrokenRecords, json_lines
from hipgpt.data.tokens import open_split

TEXTS = [f"Document {number}: to be, or not to be?\nélan 語 <|endoftext|>" for number in range(40)]
LINES = "".join(json.dumps({"id": number, "text": text}) + "\n" for number, text in enumerate(TEXTS)).encode()


def build(tmp_path, path, **changes) -> tuple[list[str], list[str], dict]:
    """Return the documents of both sides, read back through the borders in documents.bin, and the provenance."""
    named = path if isinstance(path, list) else str(path)
    settings = {"kind": "file", "path": named, "cleaning": [], "validation_fraction": 0.1, **changes}
    out = tmp_path / "out"
    build_corpus("mine", settings, out, tmp_path / "downloads")
    rows = np.fromfile(out / "documents.bin", "<u8").reshape(-1, 4).tolist()
    train, validation = ((out / name).read_bytes() for name in ("train.txt", "validation.txt"))
    sides = [train[row[0] : row[1]].decode() for row in rows], [validation[row[2] : row[3]].decode() for row in rows]
    return *([text for text in side if text] for side in sides), json.loads((out / "provenance.json").read_text())


def parquet(path, texts=TEXTS, **options):
    arrow = pytest.importorskip("pyarrow", reason="needs pip install -e '.[parquet]'")
    from pyarrow import parquet

    table = arrow.table({"id": range(len(texts)), "text": arrow.array(texts, arrow.string())})
    parquet.write_table(table, path, row_group_size=7, **options)
    return path


def compressed(tmp_path, name: str):
    path = tmp_path / name
    pack = {".gz": gzip.compress, ".zst": zstandard.compress, ".xz": lzma.compress, ".bz2": bz2.compress}
    path.write_bytes(pack.get(path.suffix, bytes)(LINES))
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.jsonl.gz", "a.jsonl.zst", "a.jsonl.xz", "a.jsonl.bz2"])
def test_each_line_is_a_document_and_every_tenth_validates(tmp_path, name):
    train, validation, provenance = build(tmp_path, compressed(tmp_path, name))
    assert validation == TEXTS[9::10]
    assert train == [text for text in TEXTS if text not in validation]
    digest = hashlib.sha256(b"".join(len(t.encode()).to_bytes(8, "little") + t.encode() for t in TEXTS))
    assert provenance["documents"] == [
        {"name": "a.jsonl" if "json" in name.split(".")[1] and "nd" not in name else name, "format": "jsonl",
         "sha256": digest.hexdigest(), "text_bytes": sum(len(text.encode()) for text in TEXTS), "records": 40,
         "validation_records": 4, "records_without_text": 0, "broken_records": 0}
    ]  # fmt: skip


def test_records_without_text_are_left_out_and_counted(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(LINES + b'{"text": null}\n{"text": ""}\n')
    parquet(tmp_path / "b.parquet", [*TEXTS, None, ""])
    for path in ("a.jsonl", "b.parquet"):
        (found,) = build(tmp_path, tmp_path / path)[2]["documents"]
        assert (found["records"], found["records_without_text"]) == (40, 2)


def test_a_broken_line_is_named_by_the_whole_path_of_its_file(tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.jsonl.gz").write_bytes(gzip.compress(LINES + b"[\n" * (folder == "y")))
    with pytest.raises(UserError, match=f"corpus mine: {tmp_path}/y/a.jsonl.gz:41: not JSON .*; broken_records: skip"):
        build(tmp_path, tmp_path)


@pytest.mark.parametrize("options", [{}, {"compression": "zstd"}, {"use_dictionary": False}])
def test_each_row_of_parquet_is_a_document(tmp_path, options):
    train, validation, provenance = build(tmp_path, parquet(tmp_path / "a.parquet", **options))
    assert validation == TEXTS[9::10] and len(train) == 36
    assert provenance["documents"][0]["format"] == "parquet"


def test_shards_divide_records_by_the_token_and_never_by_a_text(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(LINES)
    train, validation, _ = build(tmp_path, tmp_path / "a.jsonl")
    tokenizer = tiny.tokenizer()
    write_shards(tmp_path / "out", tokenizer, tmp_path, 3)
    for split, texts in (("train", train), ("validation", validation)):
        tokens = open_split(tmp_path / "manifest.json", split)
        ids = tokens.windows(np.zeros(1, np.int64), len(tokens))[0]
        begins = np.flatnonzero(ids == tokenizer.end_of_text)
        found = [tokenizer.decode(part[1:]).decode() for part in np.split(ids, begins)[1:]]
        assert begins[0] == 0 and found == texts


def test_a_hash_decides_the_side_whatever_the_order_of_files(tmp_path):
    for name, lines in (("a", LINES.splitlines(keepends=True)), ("b", LINES.splitlines(keepends=True)[::-1])):
        (tmp_path / f"{name}.jsonl").write_bytes(b"".join(lines))
    one = build(tmp_path, tmp_path / "a.jsonl", split="hash", validation_fraction=0.3)
    both = build(tmp_path, tmp_path / "*.jsonl", split="hash", validation_fraction=0.3)
    assert one[2]["split"] == "hash" and 4 < len(one[1]) < 20
    for side, twice in zip(one[:2], both[:2], strict=True):
        assert sorted(2 * side) == sorted(twice)


def test_whole_files_of_text_are_split_by_hash(tmp_path):
    for number in range(30):
        (tmp_path / f"{number}.txt").write_text(f"text {number}\n" * 5)
    train, validation, provenance = build(tmp_path, tmp_path / "*.txt", split="hash", validation_fraction=0.5)
    assert len(train) + len(validation) == 30 and {*train}.isdisjoint(validation)
    assert {one["split_at"] for one in provenance["documents"]} == {0, max(map(len, train)), min(map(len, train))}


@given(st.lists(st.text(st.characters(codec="utf-8"))), st.integers(1, 30), st.booleans())
def test_every_text_arrives_however_the_lines_are_cut(texts, size, ascii_only):
    content = "\r\n".join(json.dumps({"t": text}, ensure_ascii=ascii_only) for text in texts).encode()
    blocks = iter([content[i : i + size] for i in range(0, len(content), size)])
    assert [text.decode() for text in json_lines("a", blocks, "t", BrokenRecords())] == texts


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a"', "a.jsonl:41: not JSON (Expecting ',' delimiter"),
        ("[1]", "a.jsonl:41: got a list, expected an object; correct"),
        ('{"body": "a", "id": 1}', "a.jsonl:41: no field 'text'; its fields are body, id; set text_field to one of"),
        ('{"text": 5}', "a.jsonl:41: text: got a int, expected a text; set text_field to another"),
        ('{"text": "\\ud800"}', "a.jsonl:41: text: has half a character"),
        ("[" * 100_000, "a.jsonl:41: not JSON (maximum recursion depth"),
        ('{"text": ' + "9" * 5000 + "}", "a.jsonl:41: not JSON (Exceeds the limit"),
    ],
)  # fmt: skip
def test_a_broken_line_is_named_by_file_and_number(tmp_path, line, message):
    (tmp_path / "a.jsonl").write_bytes(LINES + line.encode() + b"\n" + LINES)
    with pytest.raises(UserError, match=f"corpus mine: {tmp_path}/{re.escape(message)}"):
        build(tmp_path, tmp_path / "a.jsonl")
    assert list((tmp_path / "out").iterdir()) == []


BROKEN = (b'{"text": "a"', b"[1]", b'{"b": "a"}', b'{"text": 5}', b'{"text": "\\ud800"}', b'{"text": "n\xe9"}', b"\0")


def test_broken_records_are_left_out_and_counted_if_the_config_says_so(tmp_path, caplog):
    (tmp_path / "a.jsonl").write_bytes(LINES + b"\n".join(BROKEN) + b'\n{"text": null}\n')
    (tmp_path / "b.jsonl").write_bytes(LINES)
    train, validation, provenance = build(tmp_path, tmp_path / "*.jsonl", broken_records="skip")
    assert sorted(train + validation) == sorted(2 * TEXTS)
    a, b = provenance["documents"]
    assert (a["records"], a["records_without_text"], a["broken_records"]) == (40, 1, len(BROKEN))
    assert (b["records"], b["records_without_text"], b["broken_records"]) == (40, 0, 0)
    assert caplog.messages == [f"a.jsonl: left out 7 broken records; the first: {tmp_path}/a.jsonl:41: "
                               "not JSON (Expecting ',' delimiter: line 1 column 13 (char 12)), expected an object in "
                               "each line; correct that line"]  # fmt: skip


def test_a_file_of_broken_records_only_is_an_error_that_names_the_first(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(LINES)
    with pytest.raises(UserError, match="all 40 records are broken; the first: .*a.jsonl:1: no field 'body'; its"):
        build(tmp_path, tmp_path / "a.jsonl", text_field="body", broken_records="skip")


def test_a_line_in_another_encoding_is_named_and_read_with_the_key_encoding(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(LINES + '{"text": "né"}'.encode("latin-1"))
    with pytest.raises(UserError, match=r"a.jsonl:41: got the byte 0xE9 at 11 of the line.*set encoding: latin-1"):
        build(tmp_path, tmp_path / "a.jsonl")
    (tmp_path / "a.jsonl").write_bytes('{"text": "né"}\n'.encode("latin-1") + LINES)
    assert "né" in build(tmp_path, tmp_path / "a.jsonl", encoding="latin-1")[0]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1", "cp1252", "utf-8"])
def test_text_in_another_encoding_is_read_if_the_key_says_so(tmp_path, encoding):
    text = "naïve words\n" * 100_000
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    train, validation, _ = build(tmp_path, tmp_path / "a.txt", encoding=encoding)
    assert train[0] + validation[0] == text


def test_bytes_that_are_not_of_the_encoding_are_named_by_position(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"ab\xe9")
    with pytest.raises(UserError, match="a.txt: the bytes at 2 are not ascii .*; correct the key encoding"):
        build(tmp_path, tmp_path / "a.txt", encoding="ascii")
    (tmp_path / "a.txt").write_bytes("abc".encode("utf-16")[:-1])
    with pytest.raises(UserError, match="a.txt: the bytes at 6 are not utf-16"):
        build(tmp_path, tmp_path / "a.txt", encoding="utf-16")


def test_blank_lines_nulls_and_empty_texts_are_not_documents(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'\n{"text": null}\n{"text": ""}\n' + LINES + b"\n")
    assert build(tmp_path, tmp_path / "a.jsonl")[2]["documents"][0]["records"] == 40
    parquet(tmp_path / "b.parquet", [None, "", *TEXTS])
    assert build(tmp_path, tmp_path / "b.parquet")[2]["documents"][0]["records"] == 40


def test_text_field_and_format_override_the_usual_names(tmp_path):
    (tmp_path / "a.json").write_bytes(LINES.replace(b'"text"', b'"body"'))
    assert build(tmp_path, tmp_path / "a.json", format="jsonl", text_field="body")[1] == TEXTS[9::10]
    with pytest.raises(UserError, match="got JSON lines, expected UTF-8 text; name it .*.jsonl or set format: jsonl"):
        build(tmp_path, tmp_path / "a.json")


def test_cleaning_is_applied_to_each_record(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(LINES.replace(b"\\n", b"\\r\\n"))
    assert build(tmp_path, tmp_path / "a.jsonl", cleaning=["normalize_newlines"])[1] == TEXTS[9::10]


def test_json_lines_and_parquet_make_one_corpus(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(LINES)
    parquet(tmp_path / "b.parquet")
    train, validation, provenance = build(tmp_path, [str(tmp_path / "a.jsonl"), str(tmp_path / "b.parquet")])
    assert validation == 2 * TEXTS[9::10] and sorted(train + validation) == sorted(2 * TEXTS)
    assert [one["format"] for one in provenance["documents"]] == ["jsonl", "parquet"]


def test_plain_text_and_records_in_one_corpus_are_refused(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(LINES)
    (tmp_path / "README.md").write_text("about this data\n")
    with pytest.raises(UserError, match="a.jsonl is jsonl by its name, but README.md is text; name only text or only"):
        build(tmp_path, tmp_path)
    assert len(build(tmp_path, tmp_path / "*.jsonl")[0]) == 36


def test_a_wrong_format_is_told_by_the_first_bytes(tmp_path):
    parquet(tmp_path / "a.parquet").rename(tmp_path / "a.txt")
    with pytest.raises(UserError, match="a.txt: got Parquet by its first bytes.*; name it .*.parquet or set format"):
        build(tmp_path, tmp_path / "a.txt")
    (tmp_path / "b.parquet").write_bytes(LINES)
    with pytest.raises(UserError, match="b.parquet: does not begin with PAR1, so it is not Parquet"):
        build(tmp_path, tmp_path / "b.parquet")
    (tmp_path / "c.jsonl").write_bytes(gzip.compress(LINES))
    with pytest.raises(UserError, match="c.jsonl: got gzip by its first bytes, expected JSON lines"):
        build(tmp_path, tmp_path / "c.jsonl")
    (tmp_path / "d.parquet.gz").write_bytes(gzip.compress(b"PAR1"))
    with pytest.raises(UserError, match="d.parquet.gz: d.parquet is Parquet inside of another file; unpack it first"):
        build(tmp_path, tmp_path / "d.parquet.gz")


def test_a_column_that_parquet_lacks_or_that_is_not_text_is_refused_with_the_columns(tmp_path):
    path = parquet(tmp_path / "a.parquet")
    listed = r"its columns are id \(int64\), text \(string\); set text_field to one of them"
    with pytest.raises(UserError, match=f"no column 'body'; {listed}"):
        build(tmp_path, path, text_field="body")
    with pytest.raises(UserError, match=f"the column 'id' is of type int64, expected string; {listed}"):
        build(tmp_path, path, text_field="id")


@pytest.mark.parametrize("cut", [4, 100, -1])
def test_damaged_parquet_is_refused_in_one_line(tmp_path, cut):
    path = parquet(tmp_path / "a.parquet")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UserError, match="a.parquet: damaged "):
        build(tmp_path, path)


def test_without_pyarrow_the_message_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"Parquet needs the package pyarrow; pip install -e '.\[parquet\]'"):
        build(tmp_path, tmp_path / "a.parquet")


def test_a_line_without_end_is_refused_before_it_fills_the_memory(monkeypatch):
    monkeypatch.setattr(reader, "LONGEST_LINE", 100)
    blocks = iter([b'{"text": "a"}\n{"text": "' + b"a" * 60, b"a" * 60, b"never read"])
    with pytest.raises(UserError, match="a:2: got a line of more than 100 bytes, expected JSON lines"):
        list(json_lines("a", blocks, "text", BrokenRecords()))


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_records_larger_than_memory_stream_through(tmp_path, suffix):
    texts = [f"{number} " + "to be or not to be " * 50 for number in range(30_000)]
    path = tmp_path / f"a.{suffix}"
    if suffix == "parquet":
        parquet(path, texts, compression="none")
    else:
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    size = sum(map(len, texts))
    tracemalloc.start()
    settings = {"kind": "file", "path": str(path), "cleaning": [], "validation_fraction": 0.1}
    build_corpus("mine", settings, tmp_path / "out", tmp_path / "downloads")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 << 20 < size
