"""The texts in JSON lines: a JSON object in each line, one of whose fields is the text of a document."""

import json
from collections.abc import Iterator
from typing import Any

from hipgpt.base.errors import UserError

LONGEST_LINE = 256 << 20  # bytes; a line is held in memory
FIELDS_SHOWN = 20


def json_lines(name: str, blocks: Iterator[bytes], field: str) -> Iterator[bytes]:
    """Yield the text in `field` of each line, in UTF-8. A blank line and a null have no text and are left out.

    Raises UserError, naming the file and the line, for a line that is not a JSON object, lacks the field, or has
    something other than a text there.
    """
    for number, line in enumerate(_lines(name, blocks), 1):
        if line.strip():
            text = _field(f"{name}:{number}", line, field)
            if text is not None:
                yield text


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


def _field(where: str, line: bytes, field: str) -> bytes | None:
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
        raise UserError(f"{where}: got a {type(record).__name__}, expected an object with the field {field!r}")
    if field not in record:
        known = ", ".join([*record][:FIELDS_SHOWN]) or "none"
        raise UserError(f"{where}: no field {field!r}; its fields are {known}; set text_field to one of them")
    text = record[field]
    if text is not None and not isinstance(text, str):
        raise UserError(f"{where}: {field}: got a {type(text).__name__}, expected a text; set text_field to another")
    try:
        return None if text is None else text.encode()
    except UnicodeEncodeError:
        raise UserError(
            f"{where}: {field}: has half a character (a lone surrogate), expected Unicode; correct that line"
        ) from None
