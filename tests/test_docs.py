"""The docs are true: their commands run, their tables name the existing columns, the site builds."""

import ast
import dataclasses
import html
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import house
import network
import pytest
import yaml
from support.workflow_copy import ROOT, TINY, Project

from hipgpt.config.architectures import ARCHITECTURES
from hipgpt.config.settings import SamplingConfig
from hipgpt.data.tokenizer.stage import COMPRESSION_HEADER, MERGES_HEADER
from hipgpt.inference.baselines import COLUMNS as EVALUATION
from hipgpt.inference.multiple_choice import COLUMNS as TASKS
from hipgpt.reports.comparison import FITTED, compare
from hipgpt.reports.runs import run_row
from hipgpt.reports.swept import MEAN_COLUMNS
from hipgpt.training.loop import METRICS, THROUGHPUT, VALIDATION

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
GUIDES = [*sorted((ROOT / "docs/how-to").glob("add-*.md")), ROOT / "docs/design.md", ROOT / "docs/ten-stops.md"]
BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>[^\n]+) -->\n)?"
    r"```(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
SPOKEN = ("shell", "python", "yaml")


@dataclasses.dataclass(frozen=True)
class Block:
    """reason: why it is not run; title: the file that it is."""

    language: str
    text: str
    title: str | None
    reason: str | None


def blocks(page: Path) -> list[Block]:
    found = (match.groupdict() for match in BLOCK.finditer(page.read_text()))
    return [Block(**match) for match in found if match["language"] in SPOKEN]


RUN = [page for page in PAGES if any(block.reason is None and block.language != "yaml" for block in blocks(page))]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Project:
    """A finished project with the default names, whose default run takes seconds."""
    project = Project(tmp_path_factory.mktemp("docs") / "project")
    shipped = yaml.safe_load((ROOT / "config.yaml").read_text())
    tiny = {key: {**shipped[key], **value} if isinstance(shipped[key], dict) else value for key, value in TINY.items()}
    corpora = {shipped["corpus"]: TINY["corpora"]["tiny"]}
    question = {"ctx": "the king", "endings": ["shall", "love"], "label": 0}
    (project.folder / "questions.jsonl").write_text(json.dumps(question))
    tiny["evaluation"] |= {"tasks": {"verbs": {"path": "questions.jsonl"}}}
    config = {**shipped, **tiny, "corpus": shipped["corpus"], "corpora": corpora}
    (project.folder / "config.yaml").write_text(yaml.safe_dump(config))
    project.write_config({})
    tools = project.folder.parent / "bin"
    tools.mkdir()
    for name, module in {
        "snakemake": "-m snakemake",
        "hipgpt": "-c 'from hipgpt.cli.main import main; main()'",
    }.items():
        (tools / name).write_text(f'#!/bin/sh\nexec {sys.executable} {module} "$@"\n')
        (tools / name).chmod(0o755)
    project.snakemake("all")
    return project


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_commands_of_a_page_run_one_after_the_other(finished, tmp_path, page):
    folder = tmp_path / "project"
    shutil.copytree(finished.folder, folder, symlinks=True)
    path = f"{finished.folder.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(folder)}
    for block in blocks(page):
        if block.title:
            (folder / block.title).write_text(block.text)
        if block.reason or block.language == "yaml":
            continue
        program = [sys.executable, "-c", block.text] if block.language == "python" else ["sh", "-ec", block.text]
        done = subprocess.run(
            program, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert done.returncode == 0, f"{block.text}\n{done.stdout}"


@pytest.mark.slow
def test_the_notebook_trains_plots_and_samples(finished, tmp_path):
    nbclient = pytest.importorskip("nbclient", reason="needs pip install -e '.[notebook]'")
    nbformat = pytest.importorskip("nbformat", reason="needs pip install -e '.[notebook]'")
    folder = tmp_path / "project"
    shutil.copytree(finished.folder, folder, symlinks=True)
    shutil.rmtree(folder / "results/runs/default")
    notebook = nbformat.read(ROOT / "docs/notebooks/first-model.ipynb", as_version=4)
    path = f"{finished.folder.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(folder)}
    resources = {"metadata": {"path": folder}}
    nbclient.NotebookClient(notebook, timeout=300, resources=resources).execute(env=environment)
    assert (folder / "results/runs/default/run.json").exists()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert any("trigram" in output.get("data", {}).get("text/html", "") for output in outputs)
    assert any(output.get("text", "").startswith(" ") and "%" in output["text"] for output in outputs)


def test_a_block_that_is_not_run_says_why():
    found = [block for page in PAGES for block in blocks(page)]
    assert len(found) > 15 and sum(block.reason is None for block in found) > 10
    assert all(len(block.reason) > 10 for block in found if block.reason)
    assert all(block.title for block in found if block.language == "yaml"), "a config to copy is a file with a title"


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_s_links_lead_to_files_of_the_repository(page):
    links = re.findall(r"\]\((?!https?://|#)([^)\s#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def tables(page: Path) -> dict[str, list[str]]:
    """Return the first cells of the table below each heading."""
    parts = re.split(r"^## (.*)$", page.read_text(), flags=re.MULTILINE)[1:]
    return {
        name: re.findall(r"^\| `(\w+)`", text, re.MULTILINE) for name, text in zip(parts[::2], parts[1::2], strict=True)
    }


def test_the_csv_page_has_every_file_and_its_columns_in_order(finished, tmp_path):
    sampling = [field.name for field in dataclasses.fields(SamplingConfig)]
    expected = {
        "metrics.csv": METRICS,
        "validation.csv": VALIDATION,
        "throughput.csv": THROUGHPUT,
        "evaluation.csv": EVALUATION,
        "baselines.csv": EVALUATION,
        "tasks.csv": TASKS,
        "samples.csv": ("number", "prompt", "continuation", "tokens", *sampling),
        "merges.csv": MERGES_HEADER,
        "compression.csv": COMPRESSION_HEADER,
        "summary.csv": tuple(run_row(finished.folder / "results/runs/default")),
        "runs.csv": (*run_row(finished.folder / "results/runs/default"), "operations"),
        "seeds.csv": MEAN_COLUMNS,
        "fit.csv": ("x", "points", "sizes", *FITTED),
    }
    documented = {name: list(columns) for name, columns in expected.items()}
    del documented["baselines.csv"]  # its columns are those of evaluation.csv
    documented["runs.csv"] = ["operations"]  # in addition to those of summary.csv
    assert tables(ROOT / "docs/reference/csv.md") == documented
    compare([finished.folder / "results/runs/default"], tmp_path)
    folders = finished.folder / "results", tmp_path
    made = {path.name: path for folder in folders for path in folder.rglob("*.csv")}
    assert made.keys() == expected.keys()
    for name, columns in expected.items():
        assert made[name].read_text().splitlines()[0] == ",".join(columns)


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason="needs pip install -e '.[docs]'")
    site, command = tmp_path / "site", [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run([*command, site], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ops, config = ((site / "reference" / name / "index.html").read_text() for name in ("ops", "config"))
    assert "layernorm_forward" in ops and "drop_probability" in config
    assert "Return the initial values" not in config
    shipped = yaml.safe_load((ROOT / "config.yaml").read_text())
    for section in ("tokenizer", "model", "training", "evaluation"):
        for key, value in shipped[section].items():
            row = config[config.index(f"<td><code>{key}</code></td>") :].partition("</tr>")[0]
            assert f"<td><code>{html.escape(json.dumps(value), quote=False)}</code></td>" in row, key
    assert "kernels/cpu/&lt;family&gt;.cpp" in ops
    assert "y = (x - mean) * rstd * gamma + beta" in (site / "kernels" / "index.html").read_text()
    assert "--repetition-penalty" in (site / "reference" / "commands" / "index.html").read_text()
    assert "Return the table of parameters" in (site / "reference" / "python" / "index.html").read_text()
    pages = "".join(page.read_text() for page in site.rglob("*.html"))
    assert 'class="mermaid"' not in pages  # whose script the theme would fetch from elsewhere
    loaded = re.findall(r'(?:src|href)="(https?://[^"]+\.(?:js|css|woff2?))"', pages)
    assert not loaded
    assert 'href="../../reference/config/#corpora"' in (site / "how-to" / "own-text" / "index.html").read_text()
    walk = (site / "ten-stops" / "index.html").read_text()
    assert walk.count("<math ") > 8 and "arithmatex" not in walk
    assert "<code>hipgpt/gpt/model.py</code>, <code>" in walk  # the site has no sources to link to


def named_in(page: Path) -> list[str]:
    """Return the paths, and the names as path:symbol, that a page has in backticks; of design.md those in its tables.

    A name with < or * stands for several.
    """
    text = page.read_text()
    if page.name == "design.md":
        text = "\n".join(re.findall(r"^\|.*", text, re.MULTILINE))
    words = (word for quoted in re.findall(r"`([^`\n]+)`", text) for word in quoted.split())
    return list(dict.fromkeys(word for word in words if "/" in word and not set("<*") & set(word)))


def symbols(path: Path) -> set[str]:
    """Return the names in a file: top-level names and Class.name of a Python file, every word of any other file."""
    if path.suffix != ".py":
        return set(re.findall(r"\w+", path.read_text()))
    found: set[str] = set()
    for statement in ast.parse(path.read_text()).body:
        found |= defined(statement)
        if isinstance(statement, ast.ClassDef):
            found |= {f"{statement.name}.{name}" for inner in statement.body for name in defined(inner)}
    return found


def defined(statement: ast.stmt) -> set[str]:
    """Return the names that a statement defines."""
    match statement:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return {name}
        case ast.Assign(targets=targets):
            return {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}
        case ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
    return set()


NAMED = [(page, name) for page in GUIDES for name in named_in(page)]


@pytest.mark.parametrize(("page", "name"), NAMED, ids=[f"{page.name}-{name}" for page, name in NAMED])
def test_a_path_or_symbol_that_a_guide_names_exists(page, name):
    path, _, symbol = name.partition(":")
    assert (ROOT / path).exists(), f"{page.name} names {path}, which does not exist"
    assert not symbol or symbol in symbols(ROOT / path), f"{page.name}: {path} does not define {symbol}"


def test_the_table_of_wings_names_every_file():
    rows = dict(re.findall(r"^\| ([a-z/]+) \| (.+) \|$", (ROOT / "docs/design.md").read_text(), re.MULTILINE))
    for package in {path.parent for path in ROOT.glob("hipgpt/*/**/__init__.py")} - {ROOT / "hipgpt/cli"}:
        wing = package.relative_to(ROOT / "hipgpt").as_posix()
        listed = re.findall(r"\w+", re.sub(r"\([^)]*\)", "", rows[wing]))
        assert set(listed) == {path.stem for path in package.glob("[!_]*.py")}, wing


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_pictures_of_the_network_show_the_plan_as_it_is(architecture):
    picture = network.IMAGES / f"network-{architecture}.svg"
    assert picture.read_text() == network.figure(architecture), "run python docs/network.py"


def test_the_picture_of_the_house_shows_the_floors_as_they_are():
    assert house.PICTURE.read_text() == house.house(), "run python docs/house.py"


def test_the_picture_of_the_pipeline_names_rules_that_there_are_and_no_other():
    picture = (ROOT / "docs/images/pipeline.svg").read_text()
    rules = set(re.findall(r"^rule (\w+):", (ROOT / "Snakefile").read_text(), re.MULTILINE))
    boxes = set(re.findall(r">([a-z_]+),?</text>", picture)) - {"tokenizer", "token", "shards", "checkpoints"}
    assert boxes == rules - {"all", "plot_tokenizer"}


def test_the_citation_names_the_version_and_licence_of_the_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])


def test_the_public_checks_run_commands_that_there_are():
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert commands == [".ci/run", "pip install -e '.[test]'", "pytest"] and os.access(ROOT / ".ci/run", os.X_OK)


def test_the_images_that_the_docs_build_are_targets_of_the_dockerfile():
    stages = re.findall(r"^FROM \S+ AS (\w+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    named = re.findall(r"--target (\w+)", (ROOT / "docs/how-to/docker.md").read_text())
    assert named == ["cuda"] and set(named) <= set(stages) and stages[-1] == "cpu"  # the last one is the default
