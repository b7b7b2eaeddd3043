"""JSON files that one stage leaves for another: read with their shape checked, so that a damaged one is named."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hipgpt.base.errors import UserError

Shape = type | Mapping[str, Any] | list[Any]  # a type; the shape of each key that is read; [the shape of each item]


def read_json(path: Path, shape: Shape, remedy: str) -> Any:
    """Return the content of a JSON file. Raises UserError, with the remedy, if it is absent, or not of this shape."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; {remedy}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: no JSON ({error}); delete it and {remedy}") from error
    if wrong := next(_wrong(content, shape), None):
        raise UserError(f"{path}: {wrong}; delete it and {remedy}")
    return content


def _wrong(content: Any, shape: Shape, key: str = "") -> Iterator[str]:
    kind = dict if isinstance(shape, Mapping) else list if isinstance(shape, list) else shape
    if type(content) is not kind:  # of a subclass is only True among numbers
        yield f"{key or 'all of it'}: got {str(content)[:40]!r}, expected {kind.__name__}"
    elif kind is dict and isinstance(shape, Mapping):
        for name, inner in shape.items():
            yield from _wrong(content.get(name), inner, f"{key}.{name}".lstrip("."))
    elif isinstance(shape, list):
        for number, item in enumerate(content):
            yield from _wrong(item, shape[0], f"{key}[{number}]")
