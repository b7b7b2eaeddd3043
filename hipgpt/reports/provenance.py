"""Provenance: run.json records the inputs of a run. It is written when training starts."""

import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hipgpt.base.json_files import read_json, write_json
from hipgpt.base.paths import ROOT
from hipgpt.compute.device import Device

PACKAGES = ("numpy", "safetensors", "snakemake")


def write_record(
    path: Path,
    config: Mapping[str, Any],
    fingerprint: Mapping[str, Any],
    device: Device,
    corpus: Path,
    operations_per_step: int,
) -> None:
    """Write run.json.

    config: the settings of the training; device: the device it trains on; corpus: the corpus's provenance.json;
    operations_per_step: floating-point operations of one step.
    """
    source = read_json(corpus, {"corpus": str, "source": str, "sha256": str}, "run the download stage")
    record = {
        "config": dict(config),
        "device": device.name,
        "operations_per_step": operations_per_step,
        "code_sha256": fingerprint["code"],
        "corpus": {key: source[key] for key in ("corpus", "source", "sha256")},
        "tokenizer_sha256": fingerprint["tokenizer_sha256"],
        "tokens_sha256": fingerprint["data_sha256"],
        "pretrained_sha256": fingerprint["pretrained_sha256"],
        "git_commit": git_commit(),
        "versions": {
            "hipgpt": version("hipgpt"),
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
            "compiler": device.compiler,
        },
    }
    write_json(path, record)


def git_commit() -> str | None:
    """Return the commit of this checkout, followed by "+" if files differ from it; None outside of git."""
    if not (ROOT / ".git").exists():
        return None
    try:
        commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, encoding="utf-8")
        changed = subprocess.run(
            ["git", "-C", ROOT, "status", "--porcelain", "-uno"], capture_output=True, encoding="utf-8"
        )
    except FileNotFoundError:  # git is not installed
        return None
    return commit.stdout.strip() + ("+" if changed.stdout else "") or None
