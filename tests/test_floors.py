"""The floors of docs/house.py are compared with the imports; modules that must stay cheap to import are checked."""

import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from house import FLOORS

from hipgpt.base.paths import ROOT
from hipgpt.pipeline.code_hash import imported_names

# A wing imports from lower floors only; wings of one floor do not know each other. No exceptions.
FLOOR = {wing: number for number, wings in enumerate(FLOORS) for wing in wings}
NO_WING = {"hipgpt", "hipgpt.__main__", "hipgpt.trained_model"}
HEAVY = {"pandas", "matplotlib", "torch", "snakemake", "scipy"}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in sorted((ROOT / "hipgpt").rglob("*.py"))}


def wing(name: str) -> str:
    return name.split(".")[1]


def imports(module: str) -> set[str]:
    """Return the modules of the package that a module imports, anywhere in it."""
    return {name if name in MODULES else name.rpartition(".")[0] for name in imported_names(MODULES[module])}


@pytest.mark.parametrize("module", [module for module in MODULES if module not in NO_WING])
def test_a_module_imports_from_its_own_wing_and_from_lower_floors(module):
    own = wing(module)
    wrong = [name for name in imports(module) if wing(name) != own and FLOOR[wing(name)] >= FLOOR[own]]
    assert not wrong, f"{module} is on floor {FLOOR[own] + 1} and imports {wrong}"


def test_no_circle_among_files():
    TopologicalSorter({module: imports(module) for module in MODULES}).prepare()


def test_every_wing_introduces_itself_and_imports_nothing():
    for module, path in MODULES.items():
        if path.name == "__init__.py" and module not in NO_WING:
            assert path.read_text().startswith('"""') and path.read_text().count('"""') == 2, module
            assert not list(imported_names(path)) and "import" not in path.read_text().split('"""')[2], module


@pytest.mark.parametrize("package", sorted({path.parent for path in MODULES.values()}), ids=str)
def test_the_reading_order_of_a_wing_names_every_file_in_it(package):
    introduction = (package / "__init__.py").read_text()
    for path in package.iterdir():
        if path.suffix == ".py" and path.stem != "__init__":
            assert path.stem in introduction, f"{package.name}/__init__.py does not name {path.name}"


def test_relative_imports_are_not_used():
    for module, path in MODULES.items():
        assert "from ." not in path.read_text(), module


@pytest.mark.parametrize("module", ["config.reading", "base.errors", "pipeline.recipes", "compute.plan", "data.shards"])
def test_import_stays_light(module):
    """The Snakefile imports config and recipes whenever it starts; plots and tables are for their own stages."""
    program = f"import sys, hipgpt.{module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.split())
