"""JSON files that one stage writes and another reads: whole or absent, and their shape is checked."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hipgpt.base.errors import UserError
from hipgpt.base.files import check_regular, replacing

MOST_BYTES = 1 << 30
Shape = type | Mapping[str, Any] | list[Any]  # a type; the shape of each key that is read; [the shape of each item]


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
    with replacing(path) as file:
        file.write(json.dumps(content, indent=2).encode() + b"\n")


def read_json(path: Path, shape: Shape, remedy: str, most_bytes: int = MOST_BYTES) -> Any:
    """Return the content of a JSON file. Raises UserError, with the remedy, if it is absent or has another shape."""
    try:
        check_regular(path)
        if (size := path.stat().st_size) > most_bytes:
            raise UserError(f"{path}: got {size:,} bytes, expected at most {most_bytes:,}; delete it and {remedy}")
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; {remedy}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error}); delete it and {remedy}") from error
    if wrong := next(_wrong(content, shape), None):
        raise UserError(f"{path}: {wrong}; delete it and {remedy}")
    return content


def _wrong(content: Any, shape: Shape, key: str = "") -> Iterator[str]:
    kind = dict if isinstance(shape, Mapping) else list if isinstance(shape, list) else shape
    if type(content) is not kind:  # not isinstance, because bool is a subclass of int
        yield f"{key or 'top level'}: got {str(content)[:40]!r}, expected {kind.__name__}"
    elif isinstance(shape, Mapping) and isinstance(content, dict):
        for name, inner in shape.items():
            yield from _wrong(content.get(name), inner, f"{key}.{name}".lstrip("."))
    elif isinstance(shape, list) and isinstance(content, list):
        for number, item in enumerate(content):
            yield from _wrong(item, shape[0], f"{key}[{number}]")
