"""Kept runs in words: the settings in which they differ from the config, their loss and their size."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hipgpt.base.errors import UserError
from hipgpt.base.tables import cell
from hipgpt.base.terminal import first_of, printable
from hipgpt.cli.info import load
from hipgpt.config.settings import ModelConfig, RunConfig, TrainingConfig
from hipgpt.config.stated import optional
from hipgpt.pipeline.history import FILES, KeptRun
from hipgpt.reports.runs import read_record, run_row

MOST_SETTINGS = 4  # of a run, in a line
# its value `auto` is stored as the one that was chosen, and says nothing about the run
CHOSEN = "training.precision"


def described(kept: Sequence[KeptRun], configfiles: list[Path]) -> list[dict[str, Any]]:
    """Return a description of each kept run. settings: those in which it differs from the config, by dotted key.

    configfiles: those that override config.yaml.

    Those by which the runs can be told apart come first.
    settings and bits_per_byte are None if the files cannot be read, and settings are empty if the config cannot.
    bytes: on the disk, which deleting the run would free.
    """
    configured: Sequence[RunConfig | None]
    try:
        config = load(configfiles)
        configured = [config.runs.get(one.run, config.runs[config.name]) for one in kept]
    except UserError:
        configured = [None] * len(kept)
    found = [_described(one, config_of_run) for one, config_of_run in zip(kept, configured, strict=True)]
    settings = [one["settings"] or {} for one in found]
    told_apart_by = {key for one in settings for key in one if len({repr(other.get(key)) for other in settings}) > 1}
    for one in found:
        if one["settings"]:  # a line has room for a few
            one["settings"] = dict(sorted(one["settings"].items(), key=lambda pair: pair[0] not in told_apart_by))
    return found


def in_words(description: Mapping[str, Any]) -> str:
    """Return a description as one line: "default 1a8d587e: training.steps 60, 3.718 bits per byte, 3.1 MB"."""
    settings, bits = description["settings"], description["bits_per_byte"]
    parts = ["its files are damaged"] if settings is None else []
    if settings:
        parts.append(first_of(MOST_SETTINGS, [f"{key} {printable(cell(value))}" for key, value in settings.items()]))
    if bits is not None:
        parts.append(f"{cell(bits)} bits per byte")
    return f"{description['run']} {description['id']}: {', '.join([*parts, size(description['bytes'])])}"


def as_config(description: Mapping[str, Any], name: str) -> str:
    """Return the settings in which a run differs from the config as YAML. Those that it lacks are named in comments.

    name: of the run that the sections of the config describe. The settings of other runs are below `runs`.
    """
    import yaml

    nested: dict[str, Any] = {}
    for key, value in description["settings"].items():
        section, _, setting = key.rpartition(".")
        if value is not None:
            (nested.setdefault(section, {}) if section else nested)[setting] = value
    run, absent = description["run"], [key for key, value in description["settings"].items() if value is None]
    text = yaml.safe_dump(nested if run == name else {"runs": {run: nested}}, sort_keys=False)
    return text + "".join(f"# and without {key}\n" for key in absent)


def size(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.1f} MB"


def _described(kept: KeptRun, configured: RunConfig | None) -> dict[str, Any]:
    settings, bits = None, None
    try:
        record, bits = read_record(kept.folder / FILES), run_row(kept.folder / FILES)["validation_bits_per_byte"]
        settings = _changed_settings(record, configured) if configured else {}
    except UserError:
        pass
    return {"run": kept.run, "id": kept.id, "settings": settings, "bits_per_byte": bits, "bytes": kept.own_bytes}


def _changed_settings(record: Mapping[str, Any], configured: RunConfig) -> dict[str, Any]:
    """Return the settings of a run.json, by dotted key, that have another value in the config.

    Where it was trained, `device` and `devices`, is not among them, because another value reruns nothing.
    """
    then, now = {"corpus": record["corpus"]["corpus"]}, {"corpus": configured.corpus}
    settings: dict[str, ModelConfig | TrainingConfig] = {"training": configured.training}
    if not configured.pretrained:  # which decides the model
        settings = {"model": configured.model, **settings}
    for section, values in settings.items():
        before = optional(type(values)) | record["config"][section]
        then |= {_key(section, name): value for name, value in before.items()}
        now |= {_key(section, name): value for name, value in dataclasses.asdict(values).items()}
    if now[CHOSEN] == "auto":
        del now[CHOSEN]
    return {key: value for key, value in then.items() if key in now and now[key] != value}


def _key(section: str, name: str) -> str:
    """Return the dotted key of a setting in the config, where the tokenizer states the size of the vocabulary."""
    return "tokenizer.vocab_size" if name == "vocab_size" else f"{section}.{name}"
