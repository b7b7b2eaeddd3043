"""A check that documents are UTF-8 text, so that no run trains on the bytes of another file format."""

import codecs
import json
from collections.abc import Iterator
from itertools import chain
from pathlib import PurePath

from hipgpt.base.errors import UserError

MAGIC = {  # first bytes of formats that users might take for text
    b"PAR1": "Parquet",
    b"ARROW1": "Arrow",
    b"Obj\x01": "Avro",
    b"SQLite format 3\x00": "SQLite",
    b"\x89HDF": "HDF5",
    b"\x93NUMPY": "NumPy",
    b"PK\x03\x04": "zip",
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstandard",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"%PDF-": "PDF",
    b"\x7fELF": "an executable",
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
JSON_LINES = (".jsonl", ".ndjson")
HEAD_BYTES = 64 << 10
EXTRACT = "write the text of each record into a plain file first"


def plain_text(name: str, blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the blocks of a document unchanged.

    Raises UserError, naming the document and the position, for another file format, JSON lines, UTF-16, a zero byte in
    the first 64 KiB, or a byte that is not UTF-8.
    """
    head = b""
    for block in blocks:
        head += block
        if len(head) >= HEAD_BYTES:
            break
    _refuse_other_formats(name, head)
    decoder, done = codecs.getincrementaldecoder("utf-8")(), 0
    for block in chain([head], blocks):
        pending = len(decoder.getstate()[0])
        try:
            decoder.decode(block)
        except UnicodeDecodeError as error:
            raise _not_utf8(name, done - pending + error.start, error.object[error.start]) from None
        done += len(block)
        yield block
    if unfinished := decoder.getstate()[0]:
        raise _not_utf8(name, done - len(unfinished), unfinished[0])


def _refuse_other_formats(name: str, head: bytes) -> None:
    for magic, kind in MAGIC.items():
        if head.startswith(magic):
            remedy = f"iconv -f utf-16 -t utf-8 {name}" if kind == "UTF-16" else EXTRACT
            raise UserError(f"{name}: got {kind} by its first bytes, expected UTF-8 text; {remedy}")
    if PurePath(name).suffix.lower() in JSON_LINES or _is_json_lines(head):
        raise UserError(f"{name}: got JSON lines, expected UTF-8 text; {EXTRACT}")
    if (position := head.find(b"\0", 0, HEAD_BYTES)) >= 0:
        raise UserError(f"{name}: got a zero byte at {position:,}, expected UTF-8 text; is it UTF-16 or binary?")


def _is_json_lines(head: bytes) -> bool:
    """Return whether each of the first two lines is a JSON object."""
    lines = head.split(b"\n", 2)[:2]
    try:
        return len(lines) == 2 and all(isinstance(json.loads(line), dict) for line in lines)
    except (ValueError, RecursionError):
        return False


def _not_utf8(name: str, position: int, byte: int) -> UserError:
    return UserError(
        f"{name}: got the byte 0x{byte:02X} at {position:,}, expected UTF-8 text; if it is Latin-1: "
        f"iconv -f latin1 -t utf-8 {name}"
    )
