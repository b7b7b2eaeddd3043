"""What decides each stage's result: settings and code of the stage and of all stages before it.

The workflow hands a recipe to Snakemake as the one param `depends` of a rule. When it differs from the one that the
existing files were made by, the stage reruns.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hipgpt.base.errors import UserError
from hipgpt.base.files import check_regular, matching_files, sha256_of
from hipgpt.config.huggingface import files_sha256
from hipgpt.config.settings import Config
from hipgpt.pipeline.code_hash import code_hash


@dataclass(frozen=True)
class Stage:
    """modules: the code that it runs; before: the stages whose files it reads; sections: the keys of a run it reads."""

    modules: tuple[str, ...]
    before: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()


DEVICES = "hipgpt.compute.open_device"  # and so every backend and its kernels
STAGES = {
    "download": Stage(("hipgpt.data.corpus",)),
    "train_tokenizer": Stage(("hipgpt.data.tokenizer.stage",), ("download",)),
    "plot_tokenizer": Stage(("hipgpt.reports.plots",), ("train_tokenizer",)),
    "tokenize": Stage(("hipgpt.data.shards",), ("train_tokenizer",)),
    "train": Stage(
        ("hipgpt.training.loop", "hipgpt.interchange.pretrained", DEVICES),
        ("tokenize",),
        ("device", "model", "training"),
    ),
    "evaluate": Stage(("hipgpt.inference.evaluation", DEVICES), ("train",), ("evaluation",)),
    "export": Stage(("hipgpt.interchange.huggingface", "hipgpt.reports.model_card"), ("evaluate",)),
    "sample": Stage(("hipgpt.inference.samples", DEVICES), ("train",), ("sampling",)),
    "plot": Stage(("hipgpt.reports.plots",), ("train",)),
    "describe": Stage(("hipgpt.reports.pages",), ("evaluate", "sample", "plot")),
    "summarize": Stage(("hipgpt.reports.summary",), ("evaluate",)),
    "compare": Stage(("hipgpt.reports.comparison",), ("evaluate",)),
}


class Recipes:
    """The recipes of all stages of a config."""

    def __init__(self, config: Config):
        self.config = config
        self._code = {name: code_hash(*stage.modules) for name, stage in STAGES.items()}
        self._sources: dict[str, Mapping[str, Any]] = {}

    def of_corpus(self, stage: str, corpus: str, tokenizer: str | None = None) -> dict[str, Any]:
        """Return the recipe of `download`, or of a stage after it with the tokenizer of that name."""
        stages = upstream(stage)
        code = {name: self._code[name] for name in stages}
        recipe: dict[str, Any] = {"corpus": corpus, "source": self.source(corpus), "code": code}
        if "train_tokenizer" in stages:
            assert tokenizer is not None, stage
            recipe["tokenizer"] = dict(self.config.tokenizers[tokenizer])
            source = Path(recipe["tokenizer"].get("from", ""))
            if source.is_file():
                recipe["tokenizer_sha256"] = sha256_of(source)
        if "tokenize" in stages:
            recipe["train_shards"] = self.config.train_shards
        return recipe

    def of_run(self, stage: str, name: str) -> dict[str, Any]:
        """Return the recipe of a stage from `train` on."""
        run = self.config.runs[name]
        recipe = {key: run.sections[key] for one in upstream(stage) for key in STAGES[one].sections}
        if run.pretrained:
            recipe["pretrained_sha256"] = files_sha256(run.pretrained)
        return self.of_corpus(stage, run.corpus, run.tokenizer) | recipe

    def source(self, corpus: str) -> Mapping[str, Any]:
        """Return what decides a corpus's text: its entry, and the hash of files here if the entry pins none."""
        if corpus not in self._sources:
            entry = dict(self.config.corpora[corpus])
            if entry["kind"] == "file" and "sha256" not in entry:
                entry["files_sha256"] = {str(path): sha256_of(path) for path in matching_files(entry["path"])}
            self._sources[corpus] = entry
        return self._sources[corpus]


def check_sources(config: Config) -> None:
    """Raise UserError, naming the key, if a file that a recipe hashes is not one on a disk."""
    for name, corpus in config.corpora.items():
        if corpus["kind"] == "file":
            with _key_named(f"corpora.{name}.path"):
                matching_files(corpus["path"])
    for run in config.runs.values():
        if source := run.sections["tokenizer"].get("from"):
            with _key_named("tokenizer.from"), contextlib.suppress(FileNotFoundError, NotADirectoryError):
                check_regular(Path(source))


@contextlib.contextmanager
def _key_named(key: str) -> Iterator[None]:
    try:
        yield
    except (UserError, OSError, ValueError) as error:
        raise UserError(f"config: {key}: {error}") from error


def upstream(stage: str) -> list[str]:
    """Return a stage and all stages before it, first things first."""
    return list(dict.fromkeys([name for before in STAGES[stage].before for name in upstream(before)] + [stage]))
