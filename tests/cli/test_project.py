"""A project without the checkout: hipgpt init and hipgpt run, and the wheel that holds all that a run needs."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from support.workflow_copy import TINY, WORDS, Project

from hipgpt.base.paths import ROOT
from hipgpt.pipeline.code_hash import code_hash
from hipgpt.pipeline.recipes import STAGES

HASHES = """
from hipgpt.pipeline.code_hash import code_hash
from hipgpt.pipeline.recipes import STAGES
print(*(code_hash(*stage.modules) for stage in STAGES.values()))
"""


def python(folder: Path, *arguments: str, path: Path = ROOT, expect: int = 0) -> str:
    """Run Python in a folder, with the package in `path`, and return its output."""
    environment = {**os.environ, "PYTHONPATH": str(path)}
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert done.returncode == expect, done.stdout
    return done.stdout


def add_text(project: Path) -> None:
    (project / "texts").mkdir()
    lines = (" ".join(WORDS[(i * 7 + j) % len(WORDS)] for j in range(9)) for i in range(2000))
    (project / "texts" / "1.txt").write_text("\n".join(lines))


def test_a_project_is_three_files_and_never_overwritten(tmp_path):
    assert "next: cd new && hipgpt run" in python(tmp_path, "-m", "hipgpt", "init", "new")
    files = {path.relative_to(tmp_path / "new").as_posix() for path in (tmp_path / "new").rglob("*") if path.is_file()}
    assert files == {"Snakefile", "config.yaml", "profiles/default/profile.yaml"}
    assert all(str(ROOT) not in (tmp_path / "new" / file).read_text() for file in files)  # it can be moved and shared
    assert "Snakefile: exists" in python(tmp_path, "-m", "hipgpt", "init", "new", expect=1)
    assert "hipgpt init DIR" in python(tmp_path, "-m", "hipgpt", "run", expect=1)


def test_a_project_does_not_change_with_the_config_of_the_checkout(tmp_path):
    checkout = Project(tmp_path / "checkout").folder
    python(tmp_path, "-m", "hipgpt", "init", "project", path=checkout)
    edited = (
        (checkout / "config.yaml").read_text().replace("steps: 1500", "steps: 7").replace("runs: {}", "runs: {x: {}}")
    )
    (checkout / "config.yaml").write_text(edited)
    found = json.loads(python(tmp_path / "project", "-m", "hipgpt", "info", "--json", path=checkout))
    assert (found["run"], found["steps"]) == ("default", 1500)
    planned = python(tmp_path / "project", "-m", "hipgpt", "run", "-n", path=checkout)
    assert re.search(r"^train +1$", planned, re.MULTILINE)


def test_plain_snakemake_works_in_a_project_as_hipgpt_run_does(tmp_path):
    python(tmp_path, "-m", "hipgpt", "init", ".")
    for program in (["snakemake", "--cores", "1", "all"], ["hipgpt", "run"]):
        shown = python(tmp_path, "-m", *program, "-n")
        assert "profile profiles/default for" in shown.splitlines()[0]
        assert "\n    not made yet\n" in shown and "jobid" not in shown  # as our logger writes it
    assert "max-checksum-file-size" in (tmp_path / "profiles/default/profile.yaml").read_text()
    (tmp_path / "profiles/default/profile.yaml").unlink()
    (tmp_path / "profiles/default").rmdir()
    assert str(ROOT / "profiles/default") in python(tmp_path, "-m", "hipgpt", "run", "--cores", "1", "all", "-n")


@pytest.mark.parametrize("command", ["run", "why"])
@pytest.mark.parametrize("option", [["--configfile", "absent.yaml"], ["-n", "--configfile=absent.yaml"]])
def test_a_config_file_that_is_absent_or_broken_is_one_line(tmp_path, command, option):
    python(tmp_path, "-m", "hipgpt", "init", ".")
    said = python(tmp_path, "-m", "hipgpt", command, *option, expect=1)
    assert said == "error: --configfile: absent.yaml: no such file; write targets before --configfile\n"
    (tmp_path / "absent.yaml").write_text("training: {steps: 5\ncorpus: mine\n")
    said = python(tmp_path, "-m", "hipgpt", command, *option, expect=1)
    assert said.startswith("error: absent.yaml: not YAML (") and "line 2" in said and said.count("\n") == 1


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The folder into which the wheel of this checkout is installed. A build leaves files, so a copy is built."""
    folder = tmp_path_factory.mktemp("wheel")
    source = Project(folder / "source").folder
    for file in ("pyproject.toml", "setup.py", "LICENSE", "configs"):
        copy = shutil.copytree if (ROOT / file).is_dir() else shutil.copy
        copy(ROOT / file, source / file)
    python(folder, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(source))
    wheel = next(folder.glob("hipgpt-*.whl"))
    python(folder, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder / "site"), str(wheel))
    return folder / "site"


@pytest.mark.slow
def test_a_project_of_the_installed_wheel_trains_a_model(installed, tmp_path):
    python(tmp_path, "-m", "hipgpt", "init", "project", path=installed)
    project = tmp_path / "project"
    add_text(project)
    (project / "config.yaml").write_text(yaml.safe_dump(TINY))
    assert "summarize" in python(project, "-m", "hipgpt", "run", "-n", path=installed)  # everything, without a target
    output = python(project, "-m", "hipgpt", "run", "--cores", "2", "results/runs/default/samples.txt", path=installed)
    assert "train default" in output and "jobid" not in output
    assert (project / "results/runs/default/samples.txt").read_text().startswith("--- prompt 0\nthe king")
    assert "Nothing to be done" in python(
        project, "-m", "hipgpt", "run", "results/runs/default/samples.txt", path=installed
    )


@pytest.mark.slow
def test_the_wheel_has_the_code_hashes_of_the_checkout(installed, tmp_path):
    expected = [code_hash(*stage.modules) for stage in STAGES.values()]
    assert python(tmp_path, "-c", HASHES, path=installed).split() == expected


@pytest.mark.slow
def test_the_commands_of_the_kubernetes_job_are_accepted(tmp_path):
    _, job = yaml.safe_load_all((ROOT / "profiles/kubernetes/job.yaml").read_text())
    pod = job["spec"]["template"]["spec"]
    (first,), (second,) = pod["initContainers"], pod["containers"]
    assert first["command"][-1] == "test -e Snakefile || hipgpt init ."
    python(tmp_path, "-m", "hipgpt", "init", ".")
    assert "train" in python(tmp_path, "-m", "hipgpt", *second["args"], "-n")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_hipgpt_run_alone_saves_the_training(tmp_path, number):
    python(tmp_path, "-m", "hipgpt", "init", "project")
    project = tmp_path / "project"
    add_text(project)
    training = {**TINY["training"], "steps": 100000, "save_every_steps": 100000, "validate_every_steps": 100000}
    (project / "config.yaml").write_text(yaml.safe_dump({**TINY, "training": training}))
    command = [sys.executable, "-m", "hipgpt", "run", "--cores", "1", "results/runs/default/run.json"]
    with open(tmp_path / "output", "w") as output:
        running = subprocess.Popen(
            command, cwd=project, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=output, stderr=output
        )
    log = project / "results/runs/default/logs/train.log"
    while not (log.exists() and "step 2 of" in log.read_text()):
        assert running.poll() is None, (tmp_path / "output").read_text()
        time.sleep(0.05)
    running.send_signal(number)
    assert running.wait(60) != 0
    assert re.search(r"stopped after step \d+ of 100000, state saved", log.read_text())
