"""A copy of the project in which a tiny run takes seconds, with functions that run its commands."""

import copy
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Self

import yaml

from hipgpt.base.paths import ROOT
from support import snakemake_forks

PARTS = (
    "Snakefile",
    "config.yaml",
    "README.md",
    "hipgpt",
    "kernels",
    "profiles",
    "snakemake_logger_plugin_hipgpt",
    "workflow",
)
WORDS = ["the", "king", "shall", "speak", "of", "love", "and", "war", "before", "the", "night", "is", "gone", "my lord"]
LINES = 14_000  # in each of two texts: over the 1 MB up to which Snakemake compares content by itself
TINY = {
    "corpus": "tiny",
    "corpora": {"tiny": {"kind": "file", "path": "texts/*.txt", "cleaning": [], "validation_fraction": 0.1}},
    "train_shards": 2,
    "tokenizer": {"vocab_size": 290},
    "model": {"embed_dim": 16, "num_layers": 1, "num_heads": 2, "mlp_dim": 16, "context_length": 8},
    "training": {
        "steps": 12,
        "batch_sequences": 4,
        "log_every_steps": 2,
        "validate_every_steps": 4,
        "save_every_steps": 5,
        "sample_every_steps": 6,
        "sample_prompt": "the",
        "sample_tokens": 8,
    },
    "evaluation": {"stride_tokens": 4},
    "sampling": {"prompts": ["the king"], "num_tokens": 12},
}
# Timings, and what is drawn or averaged from them; the log has the time of day.
NOT_REPRODUCIBLE = {
    "throughput.csv", "throughput.png", "throughput.svg", "summary.csv", "train.log", "report.html", "summary.html",
    "SHA256SUMS",
}  # fmt: skip


class Project:
    """A copy of the project's sources in `folder`, with a tiny corpus and config."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        for part in PARTS:
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, folder / part, ignore=ignored)
            else:
                shutil.copy(source, folder / part)
        (folder / "texts").mkdir()
        for number in range(2):
            lines = (" ".join(WORDS[(i * 7 + j * (i + number)) % len(WORDS)] for j in range(9)) for i in range(LINES))
            (folder / "texts" / f"{number}.txt").write_text("\n".join(lines))
        self.write_config(TINY)

    def copied_to(self, folder: Path) -> Self:
        """Return a copy of the project with its results, their dates and Snakemake's records."""
        twin = copy.copy(self)
        twin.folder = folder
        shutil.copytree(self.folder, folder, symlinks=True)
        return twin

    def write_config(self, overrides: dict) -> None:
        (self.folder / "tiny.yaml").write_text(yaml.safe_dump(overrides))

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "snakemake", "--cores", "2", *arguments, "--configfile", "tiny.yaml"]

    def snakemake(self, *arguments: str, expect: int = 0) -> str:
        """Run snakemake in the copy and return its output. Fails the test on another exit status."""
        _, _, _, *after = self.command(*arguments)  # python -m snakemake
        status, said = snakemake_forks.snakemake(after, self.folder, self.environment())
        assert status == expect, said
        return said

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start snakemake in the copy, in a session of its own, so that all its processes can get a signal."""
        return subprocess.Popen(
            self.command(*arguments), cwd=self.folder, env=self.environment(), text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def hipgpt(self, *arguments: str) -> str:
        """Run the command hipgpt in the copy and return its output. Fails the test on a status other than 0."""
        command = [sys.executable, "-c", "from hipgpt.cli.main import main; main()", *arguments]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment(),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def environment(self) -> dict[str, str]:
        """Return an environment in which Python imports the package of the copy."""
        return {**os.environ, "PYTHONPATH": str(self.folder)}

    def would_run(self, *arguments: str) -> set[str]:
        """Return the rules that a dry run of `all` would run."""
        output = self.snakemake("--dry-run", "all", *arguments)
        if "Nothing to be done" in output:
            return set()
        table = output.split("Job stats:")[1].split("total")[0]
        return {name for name, _ in re.findall(r"^(\w+)\s+(\d+)\s*$", table, re.MULTILINE)} - {"all"}
