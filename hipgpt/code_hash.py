"""The hash of the code that a stage runs: when it changes, and only then, the stage's results are out of date."""

import functools
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from hipgpt.backends.build import KERNELS, with_headers

ROOT = Path(__file__).resolve().parents[1]
# the first line of an import; submodules are imported on one line
IMPORT = re.compile(r"^[ ]*(?:from (hipgpt[\w.]*) import ([^(\n]*)|import (hipgpt[\w.]*))", re.MULTILINE)
TOKENIZER_KERNEL = KERNELS / "cpu" / "bpe.cpp"


def code_hash(*modules: str) -> str:
    """Return 16 hex digits over these modules ("hipgpt.training"), every module of the package that they import, in
    turn, and every kernel that these compile. Paths relative to the repository and bytes count, not dates or places.
    """
    files = set()
    for module in modules:
        files |= _closure(module)
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


@functools.cache
def _closure(module: str) -> frozenset[Path]:
    files, waiting = set(), list(_with_parents({module}))
    met = set(waiting)
    while waiting:
        name = waiting.pop()
        files |= {_file(name), *_kernels(name)}
        for imported in _imports(name):
            if imported not in met:
                met.add(imported)
                waiting.append(imported)
    return frozenset(files)


def _kernels(module: str) -> list[Path]:
    """Return the kernel sources that a module compiles, with their headers."""
    if module == "hipgpt.backends.gpu":
        return [KERNELS / "scalar.h", *_files(KERNELS / "gpu")]
    tokenizer = with_headers(TOKENIZER_KERNEL)
    if module == "hipgpt.tokenizer.native":
        return tokenizer
    if module == "hipgpt.backends.cpu":
        return [KERNELS / "scalar.h", *(path for path in _files(KERNELS / "cpu") if path not in tokenizer)]
    return []


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _file(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@functools.cache
def _imports(module: str) -> frozenset[str]:
    """Return the package's modules that a module names in an import, at the top or inside a function."""
    found = set()
    for package, names, imported in IMPORT.findall(_file(module).read_text()):
        found |= {imported or package, *(f"{package}.{name.split()[0]}" for name in names.split(",") if name.strip())}
    return frozenset(name for name in _with_parents(found) if _file(name).is_file())


def _with_parents(names: set[str]) -> Iterator[str]:
    for name in names:
        parts = name.split(".")
        yield from (".".join(parts[: end + 1]) for end in range(len(parts)))
