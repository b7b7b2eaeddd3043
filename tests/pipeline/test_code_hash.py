"""Code hashes and recipes: an edit changes those of the stages that run the code, and of the stages after them."""

import copy
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from hipgpt.base.paths import ROOT
from hipgpt.config.reading import load_config
from hipgpt.pipeline.code_hash import code_hash, code_of, files_of
from hipgpt.pipeline.recipes import STAGES, Recipes, upstream

# these read a ModelConfig
OF_MODEL = {
    "train",
    "export",
    "evaluate",
    "answer",
    "sample",
    "inspect",
    "playground",
    "describe",
    "summarize",
    "overview",
    "compare",
}
OF_DEVICE = {"train", "export", "evaluate", "answer", "sample", "inspect"}
OF_PASSES = OF_DEVICE - {"export"}
OF_TOKENS = {
    "train_tokenizer",
    "tokenize",
    "manifest",
    "baselines",
    "evaluate",
    "answer",
    "export",
    "sample",
    "inspect",
    "playground",
}
HASHES = """
import json
from hipgpt.pipeline.code_hash import code_hash
from hipgpt.pipeline.recipes import STAGES
print(json.dumps({name: code_hash(*stage.modules) for name, stage in STAGES.items()}))
"""
IMPORTED = """
import importlib, json, sys
for module in sys.argv[1:]:
    importlib.import_module(module)
print(json.dumps([m.__file__ for name, m in sys.modules.items() if name.split(".")[0] == "hipgpt"]))
"""


def output_of(program: str, root: Path, *arguments: str) -> object:
    """Return the JSON that a Python program prints. It runs with the package of `root`."""
    command, environment = [sys.executable, "-c", program, *arguments], {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """Copy all files that a hash can depend on."""
    folder = tmp_path_factory.mktemp("elsewhere") / "project"
    for part in ("hipgpt", "kernels", "workflow"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "README.md").write_text("HipGPT\n")
    return folder


@pytest.fixture(scope="module")
def before(project) -> dict[str, str]:
    return output_of(HASHES, project)


def append(line: str) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        with open(path, "a") as file:
            file.write(line + "\n")

    return edit


EDITS = {
    "hipgpt/gpt/decoder.py": {"sample"},
    "hipgpt/inference/sampling.py": {"sample"},
    "hipgpt/inference/evaluation.py": {"evaluate", "answer"},
    "hipgpt/inference/baselines.py": {"baselines", "evaluate", "answer"},
    "hipgpt/interchange/huggingface.py": {"export"},
    "hipgpt/interchange/gguf.py": set(),
    "hipgpt/interchange/pretrained.py": {"train", "export"},
    "hipgpt/reports/model_card.py": {"export"},
    "hipgpt/reports/plots.py": {"plot", "plot_tokenizer", "compare"},
    "hipgpt/reports/summary.py": {"summarize", "overview"},
    "hipgpt/reports/comparison.py": {"compare"},
    "hipgpt/reports/overview.py": {"overview"},
    "hipgpt/reports/swept.py": {"describe", "summarize", "overview", "compare"},
    "hipgpt/reports/runs.py": {"export", "describe", "summarize", "overview", "compare"},
    "hipgpt/reports/pages.py": {"describe", "overview"},
    "hipgpt/reports/playground.py": {"playground"},
    "hipgpt/reports/templates/playground/model.js": {"playground", "describe", "overview"},
    "hipgpt/inference/inspection.py": {"inspect"},
    "hipgpt/config/settings.py": OF_MODEL,
    "hipgpt/config/reading.py": set(),
    "hipgpt/training/loop.py": {"train"},
    "hipgpt/training/optimizer.py": {"train"},
    "hipgpt/training/estimate.py": set(),
    "hipgpt/cli/main.py": set(),
    "hipgpt/pipeline/recipes.py": set(),
    "hipgpt/data/corpus.py": {"download"},
    "hipgpt/gpt/parameters.py": OF_MODEL,
    "hipgpt/gpt/model.py": OF_PASSES,
    "hipgpt/__init__.py": set(STAGES),
    "hipgpt/data/tokenizer/reference.py": OF_TOKENS,
    "kernels/bpe/api.cpp": OF_TOKENS,
    "kernels/bpe/trainer.h": OF_TOKENS,
    "kernels/cpu/layernorm.cpp": OF_PASSES,
    "kernels/formulas.h": OF_PASSES,
    "kernels/step_state.h": OF_PASSES,
    "kernels/gpu/matmul.hip": OF_PASSES,
    "kernels/gpu/platform/cuda.h": OF_PASSES,
    "hipgpt/compute/backends/cuda.py": OF_PASSES,
    "hipgpt/compute/backends/hip.py": OF_PASSES,
    "README.md": set(),
    "workflow/scripts/train.py": set(),
}
NEW_CODE = {".py": "CONSTANT = 1", ".cpp": "constexpr int CONSTANT = 1;", ".h": "constexpr int CONSTANT = 1;",
            ".hip": "constexpr int CONSTANT = 1;", ".md": "Words.", ".js": "const CONSTANT = 1;"}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_changes_the_hash_of_the_stages_that_run_it(project, before, name):
    path = project / name
    original = path.read_bytes()
    append(NEW_CODE[path.suffix])(path)
    after = output_of(HASHES, project)
    path.write_bytes(original)
    assert {stage for stage in STAGES if after[stage] != before[stage]} == EDITS[name]


PYTHON = """
import math

RATE = 3e-4


def area(radius):
    return math.pi * radius ** 2
"""
CPP = """
#include <cmath>
#define HALF(x) ((x) / 2)
constexpr float RATE = 3e-4f;
const char* NAME = "a // b";
static float area(float radius) { return 3.14f * radius * radius; }
"""
WORDS = {  # edits that change no code
    "a comment": (PYTHON + "# more\n", CPP + "// more\n"),
    "a comment after code": (PYTHON.replace("3e-4", "3e-4  # small"), CPP.replace("3e-4f;", "3e-4f; /* small */")),
    "a blank line": (PYTHON.replace("RATE", "\nRATE"), CPP.replace("constexpr", "\n\nconstexpr")),
    "a docstring or a block of comment": ('"""Areas."""\n' + PYTHON, "/* Areas.\n   Of circles. */\n" + CPP),
    "a docstring of a function": (PYTHON.replace("    return", '    """Return it."""\n    return'), CPP),
    "a reformatted line": (
        PYTHON.replace("radius ** 2", "(\n        radius**2\n    )"),
        CPP.replace("{ return 3.14f * ", "{\n    return 3.14f *\n        ").replace("((x) / 2)", "\\\n    ((x)/2)"),
    ),
}
CODE = {  # edits that change code, however small
    "a constant": (PYTHON.replace("3e-4", "3e-5"), CPP.replace("3e-4f", "3e-5f")),
    "a string": (PYTHON + "x = ' a'\n", CPP.replace("a // b", "a //  b")),
    "an operator": (PYTHON.replace("**", "*"), CPP.replace("x) / 2", "x) * 2")),
    "a name": (PYTHON.replace("radius", "r"), CPP.replace("radius", "r")),
    "indentation or a line end that matters": (
        PYTHON.replace("    return", "    if radius:\n        return"),
        CPP.replace("#define HALF(x) (", "#define HALF (x) ("),
    ),
    "a code line commented out": (PYTHON.replace("RATE", "# RATE"), CPP.replace("constexpr", "// constexpr")),
}


@pytest.mark.parametrize("suffix", [".py", ".h", ".cpp", ".hip"])
@pytest.mark.parametrize(("edit", "counts"), [*((e, False) for e in WORDS), *((e, True) for e in CODE)])
def test_code_counts_and_words_do_not(tmp_path, edit, counts, suffix):
    python, cpp = (WORDS | CODE)[edit]
    before, after = tmp_path / f"before{suffix}", tmp_path / f"after{suffix}"
    before.write_text(PYTHON if suffix == ".py" else CPP)
    after.write_text(python if suffix == ".py" else cpp)
    assert (code_of(before) != code_of(after)) is counts


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_the_hash_is_the_same_in_every_python(version):
    python = shutil.which(f"python{version}")
    if python is None or subprocess.run([python, "--version"], capture_output=True).returncode:
        pytest.skip(f"no python{version} here")
    program = "from hipgpt.pipeline.code_hash import code_hash; print(code_hash('hipgpt.training.loop'))"
    done = subprocess.run([python, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == code_hash("hipgpt.training.loop")


def test_neither_the_place_nor_the_dates_of_files_count(project, before):
    assert before == {name: code_hash(*stage.modules) for name, stage in STAGES.items()}
    for path in project.rglob("*.py"):
        os.utime(path, (1, 1))
    assert output_of(HASHES, project) == before


def test_an_import_inside_a_function_counts(project, before):
    path = project / "hipgpt/data/corpus.py"
    original = path.read_bytes()
    append("def later():\n    from hipgpt.pipeline import recipes\n    return recipes")(path)
    imported = output_of(HASHES, project)
    append("CONSTANT = 1")(project / "hipgpt/pipeline/recipes.py")
    assert output_of(HASHES, project)["download"] != imported["download"] != before["download"]
    path.write_bytes(original)
    shutil.copy(ROOT / "hipgpt/pipeline/recipes.py", project / "hipgpt/pipeline/recipes.py")


@pytest.mark.parametrize("stage", STAGES)
def test_the_hash_covers_every_module_that_importing_the_stage_loads(stage):
    modules = STAGES[stage].modules
    loaded = output_of(IMPORTED, ROOT, *modules)
    assert {Path(path) for path in loaded} <= set().union(*map(files_of, modules))


def test_stages_are_hashed_with_all_before_them():
    assert upstream("train") == ["download", "train_tokenizer", "tokenize", "manifest", "train"]
    assert upstream("summarize") == [
        "download",
        "train_tokenizer",
        "tokenize",
        "manifest",
        "baselines",
        "train",
        "evaluate",
        "summarize",
    ]


def recipes_of(changes: dict, stages: tuple[str, ...] = tuple(STAGES)) -> dict[str, str]:
    """Return the recipe of each stage for the shipped config, with the changes merged into its sections."""
    config = copy.deepcopy(yaml.safe_load((ROOT / "config.yaml").read_text()))
    for key, value in changes.items():
        config[key] = config[key] | value if isinstance(value, dict) else value
    loaded = load_config(config)
    recipes, run = Recipes(loaded), loaded.runs["default"]
    shared = [
        stage for stage in ("download", "train_tokenizer", "tokenize", "manifest", "baselines") if stage in stages
    ]
    found = {stage: recipes.of_corpus(stage, run.corpus, run.tokenizer) for stage in shared}
    return found | {stage: recipes.of_run(stage, "default") for stage in stages if stage not in shared}


SHAKESPEARE = yaml.safe_load((ROOT / "config.yaml").read_text())["corpora"]["shakespeare"]


@pytest.mark.parametrize(
    ("changes", "stages"),
    [
        ({}, set()),
        ({"sampling": {"prompts": ["another"]}}, {"sample", "playground", "describe", "overview"}),
        ({"evaluation": {"stride_tokens": 8}}, {"evaluate", "export", "describe", "summarize", "overview", "compare"}),
        ({"training": {"learning_rate_peak": 1e-3}}, OF_MODEL | {"plot"}),
        ({"training": {"save_every_steps": 7, "keep_last": 5}}, set()),
        ({"model": {"num_layers": 4, "num_heads": 2}}, OF_MODEL | {"plot"}),
        ({"device": "cpu"}, set()),
        ({"train_shards": 2}, OF_MODEL | {"plot", "tokenize", "manifest", "baselines"}),
        ({"tokenizer": {"vocab_size": 600}}, set(STAGES) - {"download"}),
        ({"corpus": "tiny_shakespeare"}, set(STAGES)),
        ({"corpora": {"another": {"kind": "file", "path": "x", "cleaning": [], "validation_fraction": 0.1}}}, set()),
        ({"corpora": {"shakespeare": SHAKESPEARE | {"license": "cc0-1.0", "language": "en"}}}, {"export"}),
        ({"runs": {"second": {}}}, set()),
    ],
)
def test_a_setting_changes_the_recipes_of_the_stages_that_it_decides(changes, stages):
    before, after = recipes_of({}), recipes_of(changes)
    assert {stage for stage in STAGES if after[stage] != before[stage]} == stages


def test_a_recipe_holds_those_of_the_stages_before_it():
    recipes = recipes_of({})
    for stage, one in STAGES.items():
        for earlier in one.before:
            before = recipes[earlier]
            assert recipes[stage]["code"].items() > before["code"].items()
            assert recipes[stage].items() >= {key: value for key, value in before.items() if key != "code"}.items()


@pytest.mark.parametrize("pinned", [False, True])
def test_files_here_count_by_their_bytes_unless_a_hash_pins_them(tmp_path, pinned):
    text, other = tmp_path / "a.txt", tmp_path / "sub" / "b.txt"
    other.parent.mkdir()
    text.write_text("one")
    other.write_text("two")
    entry = {"kind": "file", "path": f"{tmp_path}/**/*.txt", "cleaning": [], "validation_fraction": 0.1}
    corpora = {"corpora": {"mine": entry | ({"sha256": "0" * 64} if pinned else {})}, "corpus": "mine"}
    before = recipes_of(corpora, ("download",))
    os.utime(text, (1, 1))
    assert recipes_of(corpora, ("download",)) == before
    other.write_text("too")
    assert (recipes_of(corpora, ("download",)) == before) is pinned
