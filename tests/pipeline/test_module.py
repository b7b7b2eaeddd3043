"""Another workflow imports this one: `module hipgpt`, its rules renamed, its files below a prefix."""

import subprocess
import sys

import pytest
from support.workflow_copy import TINY, Project

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
