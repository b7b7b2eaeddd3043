"""A YAML file, read without what a parser lets through: a key that is given twice, and values of any size."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from hipgpt.base.errors import UserError
from hipgpt.base.files import check_regular

MOST_BYTES = 16 << 20
MOST_VALUES = 100_000  # of a file once its aliases are replaced by what they stand for
DEEPEST = 100


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file.

    Raises UserError, naming file, key and line, if it cannot be read or parsed, or if it holds a key twice.
    """
    try:
        check_regular(path)
        with open(path, "rb") as file:
            text = file.read(MOST_BYTES + 1)
        if len(text) > MOST_BYTES:
            raise UserError(f"{path}: got more than {MOST_BYTES:,} bytes, expected a config; name another file")
        loader = yaml.SafeLoader(text.decode())
        node = loader.get_single_node()
        if node is None:
            return None
        _check(path, loader, node)
        return loader.construct_document(node)
    except OSError as error:
        raise UserError(f"{path}: cannot be read as a config: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path}: not YAML ({' '.join(str(error).split())}); correct it there") from error


def _check(path: Path, loader: yaml.SafeLoader, root: yaml.Node) -> None:
    """Visit every value, those of aliases once for each use, as the readers of the config will."""
    waiting, seen = [("", root, 0)], 0
    while waiting:
        key, node, depth = waiting.pop()
        seen += 1
        where = f"{path}: line {node.start_mark.line + 1}: {key or 'top level'}"
        if seen > MOST_VALUES or depth > DEEPEST:
            raise UserError(
                f"{where}: got more than {MOST_VALUES:,} values or {DEEPEST} levels once aliases are replaced, "
                "expected a config; remove aliases of aliases"
            )
        if isinstance(node, yaml.ScalarNode):
            _check_scalar(where, loader, node)
        elif isinstance(node, yaml.MappingNode):
            _check_keys(path, key, node)
        waiting += [(inner, child, depth + 1) for inner, child in _inside(key, node)]


def _check_scalar(where: str, loader: yaml.SafeLoader, node: yaml.ScalarNode) -> None:
    try:
        loader.construct_object(node)
    except ValueError as error:  # a number of thousands of digits, a date that no calendar has
        raise UserError(
            f"{where}: got {node.value[:40]!r}, which cannot be read ({error}); quote or correct it"
        ) from None


def _check_keys(path: Path, key: str, node: yaml.MappingNode) -> None:
    lines: dict[str, int] = {}  # in which each key stands
    for name, _ in node.value:
        if not isinstance(name, yaml.ScalarNode):
            raise UserError(
                f"{path}: line {name.start_mark.line + 1}: {key or 'top level'}: got a list or a map as a key, "
                "expected a word; quote it"
            )
        line = name.start_mark.line + 1
        if name.value in lines:
            raise UserError(
                f"{path}: line {line}: {f'{key}.{name.value}'.lstrip('.')}: this key is given twice, first in line "
                f"{lines[name.value]}; remove one of them"
            )
        lines[name.value] = line


def _inside(key: str, node: yaml.Node) -> Iterator[tuple[str, yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            yield f"{key}.{name.value}".lstrip("."), value
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield f"{key}[{number}]", value
