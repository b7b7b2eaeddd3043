"""Another workflow imports this one: `module hipgpt`, its rules renamed, its files below a prefix."""

import re
import shutil
import subprocess
import sys

import pytest
import yaml
from support.workflow_copy import TINY, Project

from hipgpt.base.paths import ROOT

SNAKEFILE = """
configfile: "tiny.yaml"

module hipgpt:
    snakefile: "{source}"
    config: config
    prefix: "gpt"

use rule * from hipgpt as gpt_*

rule report_size:
    input: "gpt/results/runs/default/samples.txt"
    output: "size.txt"
    shell: "wc -c < {{input}} > {{output}}"
"""


DEPLOYED = """
configfile: "config/config.yaml"

module hipgpt:
    snakefile: "git+file://{repository}/workflow/Snakefile@main"
    config: config

use rule * from hipgpt
"""  # as snakedeploy writes it


@pytest.mark.slow
def test_a_deployed_project_imports_the_workflow_from_a_repository(tmp_path):
    project = Project(tmp_path / "project")
    repository, deployed = tmp_path / "repository", tmp_path / "deployed"
    shutil.copytree(ROOT / "workflow", repository / "workflow")
    for words in ("init -q -b main", "add .", "-c user.name=a -c user.email=a@b commit -q -m all"):
        subprocess.run(["git", "-C", repository, *words.split()], check=True)
    (deployed / "workflow").mkdir(parents=True)
    (deployed / "workflow/Snakefile").write_text(DEPLOYED.format(repository=repository))
    (deployed / "config").mkdir()
    texts = {"tiny": {**TINY["corpora"]["tiny"], "path": str(project.folder / "texts/*.txt")}}
    (deployed / "config/config.yaml").write_text(yaml.safe_dump({**TINY, "corpora": texts}))
    for expected in ("rule train:", "Nothing to be done"):
        command = [sys.executable, "-m", "snakemake", "--cores", "2"]
        done = subprocess.run(command, cwd=deployed, env=project.environment(), capture_output=True, text=True)
        assert done.returncode == 0 and expected in done.stdout + done.stderr, done.stderr
    assert (deployed / "results/runs/default/report.html").exists()


@pytest.mark.slow
def test_another_workflow_imports_the_rules_under_other_names_and_folders(tmp_path):
    project = Project(tmp_path / "project")
    other = tmp_path / "other"
    other.mkdir()
    project.write_config(
        {**TINY, "corpora": {"tiny": {**TINY["corpora"]["tiny"], "path": str(project.folder / "texts/*.txt")}}}
    )
    (project.folder / "tiny.yaml").rename(other / "tiny.yaml")
    (other / "Snakefile").write_text(SNAKEFILE.format(source=project.folder / "Snakefile"))

    def snakemake(*arguments: str) -> str:
        command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
        done = subprocess.run(command, cwd=other, env=project.environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    assert "rule gpt_train:" in snakemake("size.txt", "gpt/results/summary.csv", "gpt/results/runs/default/report.html")
    assert int((other / "size.txt").read_text()) > 10 and not (other / "results").exists()
    assert "Nothing to be done" in snakemake("size.txt", "gpt/results/summary.csv")

    guide = (ROOT / "docs/how-to/module.md").read_text()
    profile = re.search(r'```yaml title="(profiles/default/profile.yaml)"\n(.*?)```', guide, re.DOTALL)
    (other / profile[1]).parent.mkdir(parents=True)
    (other / profile[1]).write_text(profile[2])
    locks = other / ".snakemake/locks"
    locks.mkdir(exist_ok=True)
    for name in ("0.input.lock", "0.output.lock"):
        (locks / name).write_text("size.txt\n")  # as a killed workflow leaves them
    (other / "size.txt").unlink()
    assert "report_size" in snakemake("--dry-run", "size.txt")
    assert re.search(r"^\[1/1\]  report_size .* s$", snakemake("size.txt"), re.MULTILINE)
