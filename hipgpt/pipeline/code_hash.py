"""The hash of the code that a stage runs. If the code changes, the hash does, and the stage runs again.

Only code counts: of Python the syntax tree without docstrings, of C++ and HIP the tokens without comments. A reworded
comment or a reformatted line therefore reruns nothing.
"""

import ast
import contextlib
import functools
import hashlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from hipgpt.base.errors import UserError
from hipgpt.base.files import replacing
from hipgpt.base.kernel_cache import cache_folder
from hipgpt.base.paths import KERNELS, PACKAGE, ROOT, TEMPLATES

FILES_OF = {  # the kernels that a module compiles and the templates that it fills: a file, or all files of a folder
    "hipgpt.compute.backends.gpu": (KERNELS / "formulas.h", KERNELS / "step_state.h", KERNELS / "gpu"),
    "hipgpt.compute.backends.cpu": (KERNELS / "formulas.h", KERNELS / "step_state.h", KERNELS / "cpu"),
    "hipgpt.data.tokenizer.native": (KERNELS / "bpe",),
    "hipgpt.data.tokenizer.pretokenize": (KERNELS / "bpe" / "limits.h",),
    "hipgpt.reports.rendering": (TEMPLATES,),
}
AS_IT_IS = (".html", ".css", ".js")  # a template counts byte by byte
# Node fields that carry no code, or that only some Python versions have: the hash must not depend on the version.
IGNORED_FIELDS = {"ctx", "kind", "type_comment", "type_ignores", "type_params"}
CPP_TOKEN = re.compile(
    r"""(?P<comment>//[^\n]*|/\*.*?\*/)
    |(?P<directive_end>\n)
    |(?P<blank>[^\S\n]+)
    |(?P<token>
        \#[^\S\n]*define[^\S\n]+\w+\(?                    # "(" right after the name makes it a function-like macro
        |R"(?P<delimiter>[^(\s]*)\(.*?\)(?P=delimiter)"   # raw string
        |"(?:\\.|[^"\\\n])*"                             # string
        |\.?\d(?:[\w.]|'\w|[eEpP][+-])*                  # number, 1'000 and 1e-5 included
        |'(?:\\.|[^'\\\n])*'                             # character
        |\w+
        |<<=|>>=|->\*|\.\.\.|::|->|\+\+|--|<<|>>|[-+*/%&|^<>=!]=|&&|\|\||\#\#
        |.)""",
    re.VERBOSE | re.DOTALL,
)


def code_hash(*modules: str) -> str:
    """Return 16 hex digits: a hash of the code of these modules ("hipgpt.training.loop").

    It covers every module of the package that they import, directly or indirectly, every kernel that these modules
    compile, and every template that they fill. The paths of the files count too, as they are in the repository; their
    dates do not.
    """
    files: set[Path] = set()
    for module in modules:
        files |= files_of(module)
    digest = hashlib.sha256()
    names = {path.relative_to(ROOT if KERNELS in path.parents else PACKAGE.parent).as_posix(): path for path in files}
    for name, path in sorted(names.items()):
        digest.update(f"{name}\0{_facts(path).code_sha256}\0".encode())
    _CACHE.save()
    return digest.hexdigest()[:16]


class Facts(NamedTuple):
    """The facts about a file that take long to find: the hash of its code, and the names that it imports."""

    code_sha256: str
    imports: list[str]


class _FactsCache:
    """Facts by the hash of a file's bytes, kept for the next process, because parsing all files takes a second."""

    def __init__(self) -> None:
        self.path = cache_folder() / "code_facts.json"
        self.used: dict[str, Facts] = {}
        self._changed = False
        # other rules or another Python may find other facts
        self._rules = hashlib.sha256(f"{sys.version_info[:2]}".encode() + Path(__file__).read_bytes())

    @functools.cached_property
    def _kept(self) -> dict[str, list[Any]]:
        try:
            kept = json.loads(self.path.read_bytes())
        except (OSError, ValueError):
            return {}
        return kept if isinstance(kept, dict) else {}

    def facts(self, path: Path) -> Facts:
        digest = self._rules.copy()
        digest.update(path.suffix.encode() + path.read_bytes())
        key = digest.hexdigest()
        if key in self._kept:
            self.used[key] = Facts(*self._kept[key])
        else:
            imports = list(imported_names(path)) if path.suffix == ".py" else []
            self.used[key] = Facts(hashlib.sha256(code_of(path)).hexdigest(), imports)
            self._changed = True
        return self.used[key]

    def save(self) -> None:
        """Keep the facts that this process used. A cache that cannot be written is not an error."""
        if self._changed:
            with contextlib.suppress(OSError, UserError), replacing(self.path) as file:
                file.write(json.dumps(self.used).encode())
            self._changed = False


_CACHE = _FactsCache()
_facts = functools.cache(_CACHE.facts)


def code_of(path: Path) -> bytes:
    """Return the code of a Python, C++ or HIP file without comments, docstrings and layout; a template as it is."""
    if path.suffix in AS_IT_IS:
        return path.read_bytes()
    if path.suffix == ".py":
        parts: list[str] = []
        _write_python(_syntax_tree(path), parts)
        return " ".join(parts).encode()
    return " ".join(cpp_tokens(path.read_text(encoding="utf-8"))).encode()


def _write_python(node: object, parts: list[str]) -> None:
    """Append a syntax tree as text to parts. Unlike the text of ast.dump, it is the same in Python 3.11 to 3.13."""
    if isinstance(node, ast.AST):
        parts.append(type(node).__name__)
        for name in node._fields:
            value = getattr(node, name, None)
            if value is not None and value != [] and name not in IGNORED_FIELDS:
                parts.append(name)
                _write_python(value, parts)
        parts.append(";")
    elif isinstance(node, list):
        for item in node:
            if not _is_text_alone(item):
                _write_python(item, parts)
    else:
        parts.append(repr(node))


def _is_text_alone(node: object) -> bool:
    """Return whether a node is a statement that consists of a string. Docstrings are such statements."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def cpp_tokens(source: str) -> Iterator[str]:
    """Yield the tokens of a C++ source. A line end is a token only if it ends a preprocessor directive."""
    in_directive, at_line_start = False, True
    for match in CPP_TOKEN.finditer(source.replace("\\\n", " ")):
        if match["directive_end"]:
            if in_directive:
                yield "\n"
            in_directive, at_line_start = False, True
        elif match["token"]:
            in_directive = in_directive or (at_line_start and match["token"][0] == "#")
            at_line_start = False
            yield " ".join(match["token"].split()) if match["token"][0] == "#" else match["token"]


@functools.cache
def files_of(module: str) -> frozenset[Path]:
    """Return the files whose code a module runs: its own, those of the modules that it imports, and their kernels."""
    files, waiting = set(), list(_with_parents({module}))
    met = set(waiting)
    while waiting:
        name = waiting.pop()
        files |= {_file(name), *_other_files(name)}
        for imported in _imports(name):
            if imported not in met:
                met.add(imported)
                waiting.append(imported)
    return frozenset(files)


def _other_files(module: str) -> Iterator[Path]:
    """Yield the kernel sources that a module compiles, with their headers, and the templates that it fills."""
    for path in FILES_OF.get(module, ()):
        yield from (file for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


@functools.cache
def _file(module: str) -> Path:
    path = PACKAGE.parent.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _syntax_tree(path: Path) -> ast.Module:
    return ast.parse(path.read_bytes(), str(path))


def imported_names(path: Path) -> Iterator[str]:
    """Yield the dotted names that a file imports from this package, at its top or inside a function.

    A name is a module or an attribute of one: "hipgpt.compute.plan", "hipgpt.compute.plan.Plan".
    """
    for node in ast.walk(_syntax_tree(path)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (name for name in names if name.split(".")[0] == "hipgpt")


@functools.cache
def _imports(module: str) -> frozenset[str]:
    return frozenset(name for name in _with_parents(set(_facts(_file(module)).imports)) if _file(name).is_file())


def _with_parents(names: set[str]) -> Iterator[str]:
    for name in names:
        parts = name.split(".")
        yield from (".".join(parts[: end + 1]) for end in range(len(parts)))
