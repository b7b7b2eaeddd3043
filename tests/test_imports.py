"""Imports point down only: the floors of docs/design.md, read off the sources; and what must stay cheap to import."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Lowest floor first. A module imports from its own floor and those below; a name stands for a package's modules too.
FLOORS = [
    {"errors", "files", "records", "seals"},
    {"config", "gpt2", "tensor", "op"},
    {"ops", "plan", "backends", "code_hash"},
    {"parameters", "model", "optimizer"},
    {
        "checkpoint",
        "precision",
        "pretrained",
        "metrics",
        "step_inputs",
        "trainer",
        "training",
        "evaluation",
        "sampling",
        "export",
        "plots",
        "summary",
        "estimate",
        "provenance",
        "runs",
        "tables",
        "comparison",
        "pages",
        "slurm",
    },
    {"cli", "commands", "recipes", "sweeps", "workflow.scripts"},
]
# The text's own column: from data on disk to batches, and what is counted on them. It knows no device and no model.
TEXT = {"archives", "fetch", "corpus", "tokenizer", "shards", "batches", "baselines"}
TEXT_USES = TEXT | FLOORS[0]
EXCEPTIONS = {("tokenizer", "backends.build")}  # the BPE's C++ is compiled as kernels are
HEAVY = {"pandas", "matplotlib", "torch", "snakemake", "scipy"}


def sources() -> dict[str, Path]:
    """Return the modules of the package and the workflow's scripts by name, `hipgpt.` left out."""
    modules = {}
    for path in sorted((ROOT / "hipgpt").rglob("*.py")):
        parts = path.relative_to(ROOT / "hipgpt").with_suffix("").parts
        modules[".".join(part for part in parts if part != "__init__")] = path
    del modules[""]
    scripts = (ROOT / "workflow" / "scripts").glob("*.py")
    return modules | {f"workflow.scripts.{path.stem}": path for path in scripts}


def imports(path: Path) -> Iterator[str]:
    """Yield the modules of hipgpt that a file imports, anywhere in it, as `sources` names them."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "hipgpt":
                yield name.removeprefix("hipgpt").removeprefix(".")


def within(module: str, group: set[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in group)


def floor(module: str) -> int | None:
    return next((level for level, names in enumerate(FLOORS) if within(module, names)), None)


def allowed(importer: str, imported: str) -> bool:
    """Return whether a module of the table may import another; `imported` may end with a name in that module."""
    if any(within(importer, {of}) and within(imported, {what}) for of, what in EXCEPTIONS):
        return True
    if within(importer, TEXT):
        return within(imported, TEXT_USES)
    if within(imported, TEXT):
        return floor(importer) >= floor("checkpoint")  # the text ends where training begins
    return floor(imported) is not None and floor(imported) <= floor(importer)


MODULES = sources()
every_module = pytest.mark.parametrize("module", MODULES)


@every_module
def test_module_has_a_floor(module):
    assert within(module, TEXT) or floor(module) is not None, f"give {module} a floor in tests/test_imports.py"


@every_module
def test_imports_point_down(module):
    upwards = [imported for imported in imports(MODULES[module]) if not allowed(module, imported)]
    assert not upwards, f"{module} imports {upwards}"


@pytest.mark.parametrize("importer, imported", [
    ("ops", "model"), ("plan", "training"), ("tensor", "plan"), ("config", "backends.device"), ("model", "trainer"),
    ("corpus", "plan"), ("shards", "tensor"), ("tokenizer.bpe", "backends.cpu"), ("batches", "backends.build"),
    ("plan", "shards"), ("model", "tokenizer"), ("training", "cli"), ("errors", "config"), ("cli", "unheard_of"),
])  # fmt: skip
def test_an_upward_import_would_be_seen(importer, imported):
    assert not allowed(importer, imported)


@pytest.mark.parametrize("module", ["config", "errors", "recipes", "plan", "tokenizer"])
def test_import_stays_light(module):
    """The Snakefile imports config and recipes whenever it starts; plots and tables are for their own stages."""
    program = f"import sys, hipgpt.{module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.split())
