"""Nested maps: their leaves, and how two of them differ."""

from collections.abc import Iterator, Mapping
from typing import Any


def differences(before: Any, after: Any, key: str = "") -> list[str]:
    """Return "key before -> after" for each leaf that differs between two nested maps."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        names = [*before, *(name for name in after if name not in before)]
        return [
            line
            for name in names
            for line in differences(before.get(name), after.get(name), f"{key}.{name}".lstrip("."))
        ]
    return [] if before == after else [f"{key} {before} -> {after}"]


def leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) for each leaf of nested maps."""
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from leaves(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item
