"""A check that documents are UTF-8 text, so that no run trains on the bytes of another file format."""

import codecs
import json
from collections.abc import Iterator
from itertools import chain

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
HEAD_BYTES = 64 << 10
FORMATS = {"Parquet": "name it *.parquet or set format: parquet", "UTF-16": "set encoding: utf-16"}  # by kind: remedy
EXTRACT = "write its text into a plain file first"


def recoded(name: str, blocks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    """Yield the blocks of a text in another encoding as UTF-8.

    encoding: a name that Python knows. Raises UserError, naming the document and the position, for other bytes.
    """
    decoder, done = codecs.getincrementaldecoder(encoding)(), 0
    for block in chain(blocks, [b""]):  # the last one is told to be
        pending = len(decoder.getstate()[0])
        try:
            text = decoder.decode(block, final=not block).encode()
        except UnicodeError as error:
            position, reason = done - pending + getattr(error, "start", 0), getattr(error, "reason", error)
            raise UserError(
                f"{name}: the bytes at {position:,} are not {encoding} ({reason}); correct the key encoding"
            ) from None
        done += len(block)
        yield text


def plain_text(name: str, blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the blocks of a document unchanged.

    Raises UserError, naming the document and the position, for another file format, JSON lines, UTF-16, a zero byte in
    the first 64 KiB, or a byte that is not UTF-8.
    """
    decoder, done = codecs.getincrementaldecoder("utf-8")(), 0
    for block in first_bytes_checked(name, blocks, "UTF-8 text"):
        pending = len(decoder.getstate()[0])
        try:
            decoder.decode(block)
        except UnicodeDecodeError as error:
            raise _not_utf8(name, done - pending + error.start, error.object[error.start]) from None
        done += len(block)
        yield block
    if unfinished := decoder.getstate()[0]:
        raise _not_utf8(name, done - len(unfinished), unfinished[0])


def first_bytes_checked(name: str, blocks: Iterator[bytes], expected: str) -> Iterator[bytes]:
    """Yield the bytes of the blocks unchanged. expected: "UTF-8 text" or "JSON lines".

    Raises UserError, naming the document, if its first 64 KiB are of another format.
    """
    head = b""
    for block in blocks:
        head += block
        if len(head) >= HEAD_BYTES:
            break
    for magic, kind in MAGIC.items():
        if head.startswith(magic):
            raise UserError(f"{name}: got {kind} by its first bytes, expected {expected}; {FORMATS.get(kind, EXTRACT)}")
    if expected == "UTF-8 text" and _is_json_lines(head):
        raise UserError(f"{name}: got JSON lines, expected {expected}; name it *.jsonl or set format: jsonl")
    if (position := head.find(b"\0", 0, HEAD_BYTES)) >= 0:
        raise UserError(f"{name}: got a zero byte at {position:,}, expected {expected}; is it UTF-16 or binary?")
    return chain([head], blocks)


def _is_json_lines(head: bytes) -> bool:
    """Return whether each of the first two lines is a JSON object."""
    lines = head.split(b"\n", 2)[:2]
    try:
        return len(lines) == 2 and all(isinstance(json.loads(line), dict) for line in lines)
    except (ValueError, RecursionError):
        return False


def _not_utf8(name: str, position: int, byte: int) -> UserError:
    return UserError(
        f"{name}: got the byte 0x{byte:02X} at {position:,}, expected UTF-8 text; if it is Latin-1, set "
        "encoding: latin-1"
    )
