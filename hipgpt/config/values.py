"""Single values of a config: which ones no key takes, and how a message shows one."""

from collections.abc import Iterator, Mapping
from typing import Any

from hipgpt.base.errors import UserError

LARGEST_INTEGER_BITS = 128  # the largest that the schema takes has 64
LONGEST_FILE_NAME = 255  # bytes; Linux takes no longer one
PATHS = ("from", "path")
SHOWN_CHARACTERS = 100


def check_values(value: Any, key: str = "") -> None:
    """Raise UserError, naming the key, at a number or a text that no key takes and that would break its reader."""
    for wrong in _wrong(value, key):
        raise UserError(f"config: {key or 'top level'}: {wrong}")
    if isinstance(value, Mapping):
        for name, inner in value.items():
            check_values(inner, f"{key}.{shown_key(name)}".lstrip("."))
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            check_values(inner, f"{key}[{number}]")


def shown(value: Any) -> str:
    """Return a value as Python writes it, shortened in the middle; control characters are escaped."""
    text = ascii(value) if not isinstance(value, str) or not value.isprintable() else repr(value)
    if len(text) <= SHOWN_CHARACTERS:
        return text
    return f"{text[: SHOWN_CHARACTERS // 2]}...{text[-SHOWN_CHARACTERS // 4 :]}"


def shown_key(key: Any) -> str:
    """Return a key as a part of a dotted one."""
    text = str(key)
    return shown(text).strip("'\"") if not text.isprintable() or len(text) > SHOWN_CHARACTERS else text


def _wrong(value: Any, key: str) -> Iterator[str]:
    if isinstance(value, int) and value.bit_length() > LARGEST_INTEGER_BITS:
        yield f"got a number of {value.bit_length():,} bits, expected at most {LARGEST_INTEGER_BITS}"
    if not isinstance(value, str):
        return
    if any("\ud800" <= character <= "\udfff" for character in value):
        yield f"got {shown(value)}, which has half a character (a lone surrogate); write it whole"
    if key.split(".")[-1].partition("[")[0] in PATHS:
        longest = max(len(part.encode("utf-8", "surrogatepass")) for part in value.split("/"))
        if "\0" in value or longest > LONGEST_FILE_NAME:
            yield f"got {shown(value)}, expected a path without NUL and with names of {LONGEST_FILE_NAME} bytes at most"
