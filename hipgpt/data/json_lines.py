"""The texts in JSON lines: a JSON object in each line, one of whose fields is the text of a document."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hipgpt.base.errors import UserError

LONGEST_LINE = 256 << 20  # bytes; a line is held in memory
FIELDS_SHOWN = 20


@dataclass
class BrokenRecords:
    """The broken records of a file: the first one is raised, or all are left out and counted."""

    skip: bool = False
    count: int = 0
    first: UserError | None = None

    def add(self, error: UserError) -> None:
        if not self.skip:
            raise UserError(f"{error}; broken_records: skip leaves such lines out") from error
        self.count, self.first = self.count + 1, self.first or error


def json_lines(name: str, blocks: Iterator[bytes], field: str, broken: BrokenRecords) -> Iterator[bytes]:
    """Yield the text in `field` of each line, in UTF-8. That of a null is empty. Blank lines are left out.

    A line is broken if it is not a JSON object, lacks the field, or has something other than a text there; its
    UserError, which names the file and the line, goes to `broken`. Raises UserError for a line longer than
    LONGEST_LINE, because such a file is not JSON lines.
    """
    for where, line in _numbered(name, blocks):
        try:
            text = _text(where, _object(where, line), field)
        except UserError as error:
            broken.add(error)
        else:
            yield text


def json_objects(name: str, blocks: Iterator[bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (FILE:LINE, object) for each line that is not blank.

    Raises UserError, naming the file and the line, for a line that is not a JSON object.
    """
    for where, line in _numbered(name, blocks):
        yield where, _object(where, line)


def field_of(where: str, record: dict[str, Any], field: str, remedy: str) -> Any:
    """Return a field of an object. Raises UserError, with its fields and the remedy, if it has none of that name."""
    if field not in record:
        known = ", ".join([*record][:FIELDS_SHOWN]) or "none"
        raise UserError(f"{where}: no field {field!r}; its fields are {known}; {remedy}")
    return record[field]


def encoded(where: str, text: str) -> bytes:
    """Return a text in UTF-8. Raises UserError if it has a lone surrogate, which JSON can hold."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise UserError(
            f"{where}: has half a character (a lone surrogate), expected Unicode; correct that line"
        ) from None


def _text(where: str, record: dict[str, Any], field: str) -> bytes:
    text = field_of(where, record, field, "set text_field to one of them")
    if text is not None and not isinstance(text, str):
        raise UserError(f"{where}: {field}: got a {type(text).__name__}, expected a text; set text_field to another")
    return encoded(f"{where}: {field}", text or "")


def _numbered(name: str, blocks: Iterator[bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield (FILE:LINE, line) for each line that is not blank."""
    for number, line in enumerate(_lines(name, blocks), 1):
        if line.strip():
            yield f"{name}:{number}", line


def _lines(name: str, blocks: Iterator[bytes]) -> Iterator[bytes]:
    held: list[bytes] = []  # the blocks of a line that has not ended yet
    size = number = 0
    for block in blocks:
        first, *others = block.split(b"\n")
        held.append(first)
        size += len(first)
        if others:
            yield b"".join(held)
            yield from others[:-1]
            number += len(others)
            held, size = [others[-1]], len(others[-1])
        if size > LONGEST_LINE:
            raise UserError(
                f"{name}:{number + 1}: got a line of more than {LONGEST_LINE:,} bytes, expected JSON lines, with one "
                "record in each line"
            )
    yield b"".join(held)


def _object(where: str, line: bytes) -> dict[str, Any]:
    try:
        record: Any = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(
            f"{where}: got the byte 0x{line[error.start]:02X} at {error.start:,} of the line, expected UTF-8; "
            "set encoding: latin-1, or whichever it is"
        ) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({error}), expected an object in each line; correct that line") from None
    if not isinstance(record, dict):
        raise UserError(f"{where}: got a {type(record).__name__}, expected an object; correct that line")
    return record
