"""config.yaml read into checked, frozen values: one `RunConfig` for each run.

Values are first coerced to the types of the schema, because the command line and YAML's `3e-4` give strings. They are
then checked against workflow/schemas/config.schema.yaml, then against each other. A mistake is a UserError of one line.
"""

import codecs
import dataclasses
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hipgpt.base.errors import UserError
from hipgpt.base.nearest import did_you_mean
from hipgpt.base.paths import DEFAULTS, HUB
from hipgpt.config.huggingface import TOKENIZER, model_section
from hipgpt.config.schema import check, coerced, load_schema
from hipgpt.config.settings import (
    CARD_KEYS,
    DEFAULT_RUN,
    RUN_KEYS,
    TRACKER_MODULES,
    Config,
    RunConfig,
    mistakes,
)
from hipgpt.config.stated import stated
from hipgpt.config.tokenizer_size import states_no_size, tokens_of
from hipgpt.config.values import check_values, shown

CORPUS_DEFAULTS = {"cleaning": [], "validation_fraction": 0.1}
MOST_TOKENS = 1 << 22  # of a batch: its plan is recorded in seconds, and the largest GPUs hold fewer tokens


def read_config(*paths: Path) -> dict[str, Any]:
    """Return config files merged into one; later files override earlier ones. Raises UserError if one is unreadable."""
    from hipgpt.config.yaml_file import read_yaml

    config: dict[str, Any] = {}
    for path in paths:
        found = read_yaml(path) or {}
        if not isinstance(found, Mapping):
            raise UserError(f"{path}: got a {type(found).__name__}, expected keys and values, as in config.yaml")
        config = merge(config, found)
    return config


def with_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config over the defaults, those in config.yaml of the package or the checkout.

    A config that has all sections that the schema requires gets none of them: a project has all, so it does not change
    with a checkout whose config.yaml somebody edits, or with a version that has one more optional key.
    """
    return dict(config) if set(load_schema()["required"]) <= config.keys() else merge(read_config(DEFAULTS), config)


def without_empty_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config in which `runs:` and `sweep:` with nothing below them are empty maps."""
    return {key: {} if value is None and key in ("runs", "sweep") else value for key, value in config.items()}


def load_config(config: Mapping[str, Any]) -> Config:
    """Return the checked form of a parsed config.yaml. Raises UserError on the first mistake."""
    schema, config = load_schema(), without_empty_keys(config)
    check_values(config)
    config = coerced(config, schema)
    check(config, schema, prefix="")
    base = {key: config[key] for key in RUN_KEYS}
    name = config.get("name", DEFAULT_RUN)
    overrides = {name: {}} | config["runs"]
    runs = {run: _run(run, base, changes, config["corpora"]) for run, changes in overrides.items()}
    for key, corpus in config["corpora"].items():
        _check_encoding(f"corpora.{key}.encoding", corpus.get("encoding", "utf-8"))
    corpora = {key: CORPUS_DEFAULTS | corpus for key, corpus in config["corpora"].items()}
    cards = {key: {fact: corpus.pop(fact) for fact in CARD_KEYS if fact in corpus} for key, corpus in corpora.items()}
    return Config(name, runs, corpora, config["train_shards"], config["keep_text"], cards=cards)


def _run(name: str, base: Mapping[str, Any], overrides: Mapping[str, Any], corpora: Mapping[str, Any]) -> RunConfig:
    prefix = f"runs.{name}." if overrides else ""
    schema = {**load_schema(), "required": list(RUN_KEYS)}
    sections = coerced(merge(base, overrides), schema)
    check(sections, schema, prefix)
    corpus = sections["corpus"]
    if corpus not in corpora:
        known = ", ".join(corpora)
        expected = f"an entry of corpora: {known}{did_you_mean(corpus, corpora)}"
        raise UserError(f"config: {prefix}corpus: got {corpus!r}, expected {expected}")
    if "from" in sections["model"]:
        sections |= _pretrained(sections, overrides, prefix)
    if "vocab_size" not in sections["tokenizer"]:
        sections["tokenizer"] = sections["tokenizer"] | {"vocab_size": _vocab_size(sections["tokenizer"], prefix)}
    training = {key: value for key, value in sections["training"].items() if key != "trackers"}
    run = RunConfig(name, sections | {"training": training}, tuple(sections["training"].get("trackers", ())))
    _cross_check(run, prefix)
    model = {key: value for key, value in stated(run.model).items() if key in sections["model"]}
    source = {key: value for key, value in sections["model"].items() if key == "from"}
    # a section of its own, so that another task does not evaluate the validation split again
    evaluation = dict(sections["evaluation"])
    tasks = evaluation.pop("tasks", {})
    changed = {"model": model | source, "training": stated(run.training), "evaluation": evaluation, "tasks": tasks}
    return dataclasses.replace(run, sections=sections | changed)


def _check_encoding(key: str, encoding: str) -> None:
    try:
        "".encode(encoding)  # refuses names of codecs that are not of texts, such as zlib
        codecs.getincrementaldecoder(encoding)
    except (LookupError, ValueError):
        raise UserError(
            f"config: {key}: got {shown(encoding)}, expected an encoding that Python knows, such as latin-1, cp1252 or "
            "utf-16"
        ) from None


def _pretrained(sections: Mapping[str, Any], overrides: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return the sections `model` and `tokenizer` that the directory model.from determines."""
    source = sections["model"]["from"]
    found = model_section(Path(source))
    changes = dict(overrides.get("model", {}))
    if found.get("architecture") and "context_length" in changes:  # positions are rotations: fewer need no change
        found["context_length"] = min(found["context_length"], sections["model"]["context_length"])
        del changes["context_length"]
    if others := [key for key in changes if key != "from"]:
        raise UserError(
            f"config: {prefix}model.{others[0]}: config.json of model.from determines it; remove one of them"
        )
    if own := [key for key in overrides.get("tokenizer", {}) if key != "from"]:
        raise UserError(
            f"config: {prefix}tokenizer.{own[0]}: tokenizer.json of model.from determines it; remove one of them"
        )
    tokenizer = {"from": str(Path(source) / TOKENIZER), "vocab_size": found.pop("vocab_size")}
    other = sections["tokenizer"].get("from", tokenizer["from"])
    if Path(other) != Path(tokenizer["from"]):
        raise UserError(
            f"config: {prefix}tokenizer.from: got {other!r}, but the weights of model.from were trained with "
            f"{tokenizer['from']}; remove tokenizer.from"
        )
    return {"model": {**found, "from": source}, "tokenizer": tokenizer}


def _vocab_size(tokenizer: Mapping[str, Any], prefix: str) -> int:
    source = tokenizer.get("from", "")
    if not source or source.startswith(HUB):
        about = f"state the number of tokens of {source}, which a stage fetches" if source else "the number of tokens"
        raise UserError(f"config: {prefix}tokenizer.vocab_size: missing; {about}")
    try:
        return tokens_of(Path(source))
    except UserError as error:
        raise UserError(f"config: {prefix}tokenizer.from: {error}") from error


def _cross_check(run: RunConfig, prefix: str) -> None:
    model, stride = run.model, run.sections["evaluation"]["stride_tokens"]
    batch, device, devices = run.training.batch_sequences, run.sections["device"], run.sections["devices"]
    if found := [f"{prefix}model.{key}: got {got}, expected {expected}" for key, got, expected in mistakes(model)]:
        raise UserError(f"config: {'; '.join(found)}")
    checks = [
        (stride <= model.context_length, "evaluation.stride_tokens", stride,
         f"at most model.context_length = {model.context_length}"),
        (batch * model.context_length <= MOST_TOKENS, "training.batch_sequences", batch,
         f"at most {MOST_TOKENS // model.context_length}, because a batch of sequences of {model.context_length} holds "
         f"at most {MOST_TOKENS:,} tokens; use training.accumulation_steps for larger steps"),
        (devices == "auto" or batch % devices == 0, "training.batch_sequences", batch,
         f"a multiple of devices = {devices}, because each takes its part of every batch"),
        (run.training.reduce_precision == "float32" or run.training.precision != "float32", "training.reduce_precision",
         run.training.reduce_precision, "float32 with training.precision: float32"),
        (devices == 1 or ":" not in device, "devices", devices, f"1 with device: {device}, which names one GPU"),
    ]  # fmt: skip
    for passed, key, got, expected in checks:
        if not passed:
            raise UserError(f"config: {prefix}{key}: got {got}, expected {expected}")
    for tracker in run.trackers:
        if importlib.util.find_spec(TRACKER_MODULES[tracker]) is None:
            raise UserError(
                f"config: {prefix}training.trackers: {tracker} is not installed; pip install -e '.[{tracker}]'"
            )


def merge(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return base with the values of overrides in their places, section by section.

    The size of a vocabulary belongs to its tokenizer, so another tokenizer does not inherit it.
    """
    merged = dict(base)
    for key, value in overrides.items():
        nested = isinstance(value, Mapping) and isinstance(base.get(key), Mapping)
        merged[key] = merge(base[key], value) if nested else value
    if states_no_size(overrides):
        merged.pop("vocab_size", None)
    return merged
