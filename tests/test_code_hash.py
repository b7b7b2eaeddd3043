"""Code hashes and recipes: an edit changes the stages that run the code, and those that read what they made, alone."""

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

from hipgpt.code_hash import ROOT, _closure, code_hash
from hipgpt.config import load_config
from hipgpt.recipes import STAGES, Recipes, upstream

OF_MODEL = {"train", "export", "evaluate", "sample", "describe", "summarize", "compare"}
OF_DEVICE = OF_MODEL - {"describe", "summarize"}  # these two only count parameters
OF_PASSES = OF_DEVICE - {"export"}
OF_TOKENS = {"train_tokenizer", "tokenize", "train", "export", "evaluate", "sample", "compare"}
HASHES = """
import json
from hipgpt.code_hash import code_hash
from hipgpt.recipes import STAGES
print(json.dumps({name: code_hash(stage.module) for name, stage in STAGES.items()}))
"""
IMPORTED = """
import importlib, json, sys
importlib.import_module(sys.argv[1])
print(json.dumps([m.__file__ for name, m in sys.modules.items() if name.split(".")[0] == "hipgpt"]))
"""


def output_of(program: str, root: Path, *arguments: str) -> object:
    """Return what a Python program prints as JSON, run with the package of `root`."""
    command, environment = [sys.executable, "-c", program, *arguments], {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """Copy what the hashes could see."""
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
    "hipgpt/sampling.py": {"sample", "compare"},
    "hipgpt/evaluation.py": {"evaluate"},
    "hipgpt/baselines.py": {"evaluate"},
    "hipgpt/export/huggingface.py": {"export"},
    "hipgpt/export/card.py": {"export"},
    "hipgpt/export/gguf.py": set(),
    "hipgpt/gpt2.py": OF_MODEL,
    "hipgpt/pretrained.py": {"train", "export"},
    "hipgpt/plots.py": {"plot", "plot_tokenizer", "compare"},
    "hipgpt/summary.py": {"summarize"},
    "hipgpt/comparison.py": {"compare"},
    "hipgpt/runs.py": {"export", "describe", "summarize", "compare"},
    "hipgpt/pages.py": {"describe", "summarize"},
    "hipgpt/training.py": {"train"},
    "hipgpt/optimizer.py": {"train", "compare"},
    "hipgpt/cli.py": set(),
    "hipgpt/recipes.py": set(),
    "hipgpt/corpus.py": {"download"},
    "hipgpt/parameters.py": OF_MODEL,
    "hipgpt/model.py": OF_PASSES,
    "hipgpt/__init__.py": set(STAGES),
    "hipgpt/tokenizer/bpe.py": OF_TOKENS,
    "kernels/cpu/bpe.cpp": OF_TOKENS,
    "kernels/cpu/bpe/trainer.h": OF_TOKENS,
    "kernels/cpu/layernorm.cpp": OF_DEVICE,
    "kernels/cpu/parallel.h": OF_DEVICE,
    "kernels/scalar.h": OF_DEVICE,
    "kernels/gpu/matmul.hip": OF_DEVICE,
    "kernels/gpu/platform/cuda.h": OF_DEVICE,
    "hipgpt/backends/cuda.py": OF_DEVICE,
    "hipgpt/backends/hip.py": OF_DEVICE,
    "README.md": set(),
    "workflow/scripts/train.py": set(),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_changes_the_hash_of_the_stages_that_run_it(project, before, name):
    path, comment = project / name, "#" if name.endswith("py") else "//"
    original = path.read_bytes()
    append(f"{comment} an edit")(path)
    after = output_of(HASHES, project)
    path.write_bytes(original)
    assert {stage for stage in STAGES if after[stage] != before[stage]} == EDITS[name]


def test_neither_the_place_nor_the_dates_of_files_count(project, before):
    assert before == {name: code_hash(stage.module) for name, stage in STAGES.items()}
    for path in project.rglob("*.py"):
        os.utime(path, (1, 1))
    assert output_of(HASHES, project) == before


def test_an_import_inside_a_function_counts(project, before):
    path = project / "hipgpt/corpus.py"
    original = path.read_bytes()
    append("def later():\n    from hipgpt import recipes\n    return recipes")(path)
    imported = output_of(HASHES, project)
    append("# an edit")(project / "hipgpt/recipes.py")
    assert output_of(HASHES, project)["download"] != imported["download"] != before["download"]
    path.write_bytes(original)
    shutil.copy(ROOT / "hipgpt/recipes.py", project / "hipgpt/recipes.py")


@pytest.mark.parametrize("stage", STAGES)
def test_the_hash_covers_every_module_that_importing_the_stage_loads(stage):
    loaded = output_of(IMPORTED, ROOT, STAGES[stage].module)
    assert {Path(path) for path in loaded} <= _closure(STAGES[stage].module)


def test_stages_are_hashed_with_all_before_them():
    assert upstream("train") == ["download", "train_tokenizer", "tokenize", "train"]
    assert upstream("summarize") == ["download", "train_tokenizer", "tokenize", "train", "evaluate", "summarize"]


def recipes_of(changes: dict, stages: tuple[str, ...] = tuple(STAGES)) -> dict[str, str]:
    """Return each stage's recipe for the shipped config, with the changes laid over its sections."""
    config = copy.deepcopy(yaml.safe_load((ROOT / "config.yaml").read_text()))
    for key, value in changes.items():
        config[key] = config[key] | value if isinstance(value, dict) else value
    loaded = load_config(config)
    recipes, run = Recipes(loaded), loaded.runs["default"]
    shared = [stage for stage in ("download", "train_tokenizer", "tokenize") if stage in stages]
    found = {stage: recipes.of_corpus(stage, run.corpus, run.tokenizer) for stage in shared}
    return found | {stage: recipes.of_run(stage, "default") for stage in stages if stage not in shared}


@pytest.mark.parametrize(
    ("changes", "stages"),
    [
        ({}, set()),
        ({"sampling": {"prompts": ["another"]}}, {"sample", "describe"}),
        ({"evaluation": {"stride_tokens": 8}}, {"evaluate", "export", "describe", "summarize", "compare"}),
        ({"training": {"learning_rate_peak": 1e-3}}, OF_MODEL | {"plot"}),
        ({"model": {"num_layers": 4, "num_heads": 2}}, OF_MODEL | {"plot"}),
        ({"device": "cpu"}, OF_MODEL | {"plot"}),
        ({"train_shards": 2}, OF_MODEL | {"plot", "tokenize"}),
        ({"tokenizer": {"vocab_size": 600}}, set(STAGES) - {"download"}),
        ({"corpus": "tiny_shakespeare"}, set(STAGES)),
        ({"corpora": {"another": {"kind": "file", "path": "x", "cleaning": [], "validation_fraction": 0.1}}}, set()),
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
