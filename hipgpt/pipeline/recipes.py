"""Recipes: a recipe is the settings and the code that determine the result of a stage, earlier stages included.

The workflow gives a recipe to Snakemake as the param `depends` of a rule. Snakemake stores it with the outputs. If it
differs from the stored one, Snakemake runs the stage again. `device` and `devices` say where a stage runs and are in no
recipe (docs/design.md, What reruns).
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hipgpt.base.errors import UserError
from hipgpt.base.files import check_regular, matching_files, sha256_of
from hipgpt.base.paths import HUB
from hipgpt.config.huggingface import files_sha256
from hipgpt.config.settings import Config
from hipgpt.config.stated import deciding
from hipgpt.pipeline.code_hash import code_hash


@dataclass(frozen=True)
class Stage:
    """A rule of the Snakefile.

    modules: those that it runs; the modules that they import count too. before: the stages whose files it reads.
    sections: the sections of a run's config that it reads.
    """

    modules: tuple[str, ...]
    before: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()


DEVICES = "hipgpt.compute.open_device"  # imports every backend, so the kernels of all backends count
STAGES = {
    "download": Stage(("hipgpt.data.corpus",)),
    "train_tokenizer": Stage(("hipgpt.data.tokenizer.stage",), ("download",)),
    "plot_tokenizer": Stage(("hipgpt.reports.plots",), ("train_tokenizer",)),
    "tokenize": Stage(("hipgpt.data.shards",), ("train_tokenizer",)),
    "manifest": Stage(("hipgpt.data.shards",), ("tokenize",)),
    "baselines": Stage(("hipgpt.inference.baselines",), ("manifest",)),
    "train": Stage(
        ("hipgpt.training.loop", "hipgpt.interchange.pretrained", DEVICES),
        ("manifest",),
        ("model", "training"),
    ),
    "evaluate": Stage(("hipgpt.inference.evaluation", DEVICES), ("baselines", "train"), ("evaluation",)),
    "answer": Stage(("hipgpt.inference.multiple_choice", DEVICES), ("train",), ("tasks",)),
    "export": Stage(("hipgpt.interchange.huggingface", "hipgpt.reports.model_card"), ("evaluate",)),
    "sample": Stage(("hipgpt.inference.samples", DEVICES), ("train",), ("sampling",)),
    "inspect": Stage(("hipgpt.inference.inspection", DEVICES), ("train",)),
    "playground": Stage(("hipgpt.reports.playground",), ("train",), ("sampling",)),
    "plot": Stage(("hipgpt.reports.plots",), ("train",)),
    "describe": Stage(("hipgpt.reports.pages",), ("evaluate", "answer", "sample", "inspect", "playground", "plot")),
    "summarize": Stage(("hipgpt.reports.summary",), ("evaluate",)),
    "overview": Stage(("hipgpt.reports.overview",), ("describe",)),
    "compare": Stage(("hipgpt.reports.comparison",), ("evaluate",)),
}


class Recipes:
    """The recipes of the stages under one config."""

    def __init__(self, config: Config):
        self.config = config
        self._code = {name: code_hash(*stage.modules) for name, stage in STAGES.items()}
        self._sources: dict[str, Mapping[str, Any]] = {}

    def of_corpus(self, stage: str, corpus: str, tokenizer: str | None = None) -> dict[str, Any]:
        """Return the recipe of `download`, or, with the name of a tokenizer, of a later stage before training."""
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
        """Return the recipe of `train` or of a later stage, for the run of that name."""
        run = self.config.runs[name]
        recipe = {key: run.sections[key] for one in upstream(stage) for key in STAGES[one].sections}
        if "training" in recipe:
            recipe["training"] = deciding(recipe["training"])
        if stage == "export":
            recipe["card"] = self.config.card(name)
        if run.pretrained:
            recipe["pretrained_sha256"] = files_sha256(run.pretrained)
        if tasks := recipe.get("tasks"):
            files = {task: Path(settings["path"]) for task, settings in tasks.items()}
            recipe["tasks_sha256"] = {task: sha256_of(path) for task, path in files.items() if path.is_file()}
        return self.of_corpus(stage, run.corpus, run.tokenizer) | recipe

    def source(self, corpus: str) -> Mapping[str, Any]:
        """Return the inputs that determine the text of a corpus.

        They are its entry in the config and, if the entry names local files without a sha256, the hashes of the files.
        """
        if corpus not in self._sources:
            entry = dict(self.config.corpora[corpus])
            if entry["kind"] == "file" and "sha256" not in entry:
                entry["files_sha256"] = {str(path): sha256_of(path) for path in matching_files(entry["path"])}
            self._sources[corpus] = entry
        return self._sources[corpus]


def check_sources(config: Config) -> None:
    """Raise UserError, naming the key, if a file that a recipe hashes is not one on a disk, or is not a tokenizer.

    A tokenizer is read only if the workflow has not taken it over yet, because a large one takes seconds.
    """
    used = {run.corpus for run in config.runs.values()}
    for name, corpus in config.corpora.items():
        if corpus["kind"] == "file":
            patterns = [corpus["path"]] if isinstance(corpus["path"], str) else corpus["path"]
            with _key_named(f"corpora.{name}.path"):
                # files with a sha256 may be absent, because another workflow's rule may write them later
                missing = [pattern for pattern in patterns if not matching_files(pattern)]
                if missing and name in used and "sha256" not in corpus:
                    raise UserError(
                        f"{missing[0]!r} matches no file in {Path.cwd()}, expected a file, a folder or a glob"
                    )
    for run in config.runs.values():
        for task, settings in run.sections["tasks"].items():
            with _key_named(f"evaluation.tasks.{task}.path"):
                check_regular(Path(settings["path"]))
    for run in {run.tokenizer: run for run in config.runs.values()}.values():
        settings, taken_over = run.sections["tokenizer"], Path("results/corpora", run.corpus, run.tokenizer)
        if settings.get("from", HUB).startswith(HUB):  # a stage fetches it
            continue
        with _key_named("model.from" if run.pretrained else "tokenizer.from"):
            if (taken_over / "tokenizer.json").exists():
                check_regular(Path(settings["from"]))
            else:
                from hipgpt.data.tokenizer.stage import existing_tokenizer  # other workflows need not wait for it

                existing_tokenizer(Path(settings["from"]), settings)


@contextlib.contextmanager
def _key_named(key: str) -> Iterator[None]:
    try:
        yield
    except (UserError, OSError, ValueError) as error:
        raise UserError(f"config: {key}: {error}") from error


def upstream(stage: str) -> list[str]:
    """Return all stages before a stage, in an order in which they can run, and the stage itself."""
    return list(dict.fromkeys([name for before in STAGES[stage].before for name in upstream(before)] + [stage]))
