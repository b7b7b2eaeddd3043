"""Numbers that a kernel and Python both need, read from the kernel's header, where they are written once."""

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

CONSTANT = re.compile(r"^constexpr int (\w+) = (\d+);", re.MULTILINE)


@functools.cache
def kernel_constants(header: Path) -> Mapping[str, int]:
    """Return the integer constants of a header by name: its lines `constexpr int NAME = 128;`."""
    return MappingProxyType({name: int(value) for name, value in CONSTANT.findall(header.read_text(encoding="utf-8"))})
