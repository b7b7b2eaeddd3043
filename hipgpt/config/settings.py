"""The settings of a run as frozen values; workflow/schemas/config.schema.yaml describes each key."""

import dataclasses
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hipgpt.config.architectures import ARCHITECTURES, Architecture

DEFAULT_RUN = "default"
NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"  # of runs, corpora and sweeps, which become folders; the schema has the same
NORM_EPSILON = 1e-5
RUN_KEYS = ("device", "devices", "corpus", "tokenizer", "model", "training", "evaluation", "sampling")
SAVING_KEYS = ("save_every_steps", "keep_last")  # of `training`
CARD_KEYS = ("license", "language")  # of a corpus: the model card says them; they change no text
TRACKER_MODULES = {"tensorboard": "tensorboardX", "trackio": "trackio", "mlflow": "mlflow", "wandb": "wandb"}


@dataclass(frozen=True)
class ModelConfig:
    """The `model` section with the tokenizer's vocabulary size. Optional keys are last and have a default."""

    vocab_size: int
    embed_dim: int
    num_layers: int
    num_heads: int
    mlp_dim: int
    context_length: int
    activation: str
    tie_embeddings: bool
    output_bias: bool
    architecture: str = "gpt2"
    num_kv_heads: int | None = None
    head_dim: int | None = None
    rope_base: float = 10_000.0
    norm_epsilon: float = NORM_EPSILON

    @property
    def parts(self) -> Architecture:
        return ARCHITECTURES[self.architecture]

    @property
    def head_channels(self) -> int:
        return self.head_dim or self.embed_dim // self.num_heads

    @property
    def kv_heads(self) -> int:
        return self.num_kv_heads or self.num_heads


@dataclass(frozen=True)
class TrainingConfig:
    """The `training` section; the schema describes each key. Optional keys are last and have a default."""

    seed: int
    steps: int
    batch_sequences: int
    accumulation_steps: int
    learning_rate_peak: float
    learning_rate_floor_fraction: float
    warmup_fraction: float
    beta1: float
    beta2: float
    epsilon: float
    weight_decay: float
    clip_norm: float
    drop_probability: float
    precision: str
    log_every_steps: int
    validate_every_steps: int
    validation_windows: int
    save_every_steps: int
    keep_last: int
    sample_every_steps: int
    sample_prompt: str
    sample_tokens: int
    optimizer: str = "adamw"
    muon_learning_rate_peak: float = 0.01
    schedule: str = "cosine"
    decay_fraction: float = 0.5
    reduce_precision: str = "float32"


@dataclass(frozen=True)
class SamplingConfig:
    """The `sampling` section without its prompts; the schema describes each key."""

    num_tokens: int
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    stop_at_end_of_text: bool = True
    seed: int = 1


@dataclass(frozen=True)
class RunConfig:
    """One checked run.

    sections: the coerced config of each key of RUN_KEYS, and `tasks` of the evaluation. trackers: `training.trackers`,
    which is not among them because sections determine results.
    """

    name: str
    sections: Mapping[str, Any]
    trackers: tuple[str, ...] = ()

    @property
    def corpus(self) -> str:
        corpus: str = self.sections["corpus"]
        return corpus

    @property
    def vocab_size(self) -> int:
        size: int = self.sections["tokenizer"]["vocab_size"]
        return size

    @property
    def tokenizer(self) -> str:
        """The name of the folder that holds the run's tokenizer and tokens."""
        section = self.sections["tokenizer"]
        source, pattern = section.get("from"), section.get("pattern")
        if source:
            stem = re.sub(r"[^A-Za-z0-9_.-]", "-", Path(source).stem)  # Snakemake reads braces as wildcards
            name = f"{stem}-{hashlib.sha256(source.encode()).hexdigest()[:8]}-{self.vocab_size}"
            return name + (f"-{pattern}" if pattern else "")
        return f"bpe-{self.vocab_size}" + (f"-{pattern}" if pattern not in (None, "gpt2") else "")

    @property
    def pretrained(self) -> Path | None:
        """The Hugging Face directory whose weights training starts from; None: from random weights."""
        source = self.sections["model"].get("from")
        return Path(source) if source else None

    @property
    def model(self) -> ModelConfig:
        sizes = {key: value for key, value in self.sections["model"].items() if key != "from"}
        return ModelConfig(vocab_size=self.vocab_size, **sizes)

    @property
    def training(self) -> TrainingConfig:
        return TrainingConfig(**self.sections["training"])


@dataclass(frozen=True)
class Config:
    """All of config.yaml, checked: the runs by name; entries of corpora; the runs of each sweep.

    name: of the run that the sections of the config describe, which is the first of runs.

    cards: the CARD_KEYS of each corpus, which are not in its entry because entries determine texts.
    """

    name: str
    runs: Mapping[str, RunConfig]
    corpora: Mapping[str, Mapping[str, Any]]
    train_shards: int
    keep_text: bool
    sweeps: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    cards: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)

    @property
    def tokenizers(self) -> dict[str, Mapping[str, Any]]:
        """The `tokenizer` sections of all runs, by the name of their folder."""
        return {run.tokenizer: run.sections["tokenizer"] for run in self.runs.values()}

    def card(self, name: str) -> dict[str, str]:
        """Return what the model card of a run says of its sources: license, language, datasets, pretrained.

        Only those that the config states. datasets: of the Hugging Face Hub; pretrained: the folder of `model.from`.
        """
        run = self.runs[name]
        facts = dict(self.cards.get(run.corpus, {}))
        if self.corpora[run.corpus]["kind"] == "huggingface":
            facts["datasets"] = self.corpora[run.corpus]["repository"]
        if run.pretrained:
            facts["pretrained"] = run.pretrained.name
        return facts


def mistakes(model: ModelConfig) -> Iterator[tuple[str, Any, str]]:
    """Yield (key, value, what is expected) for each setting of a model that does not fit the others."""
    parts, named = model.parts, f"with model.architecture: {model.architecture}"
    if model.head_dim is None and model.embed_dim % model.num_heads:
        yield "num_heads", model.num_heads, f"a divisor of model.embed_dim = {model.embed_dim}"
    if model.activation not in parts.activations:
        yield "activation", model.activation, f"{' or '.join(parts.activations)} {named}"
    if model.output_bias and not parts.biases:
        yield "output_bias", model.output_bias, f"false {named}"
    if not parts.rotary:
        for key, value in (("num_kv_heads", model.num_kv_heads), ("head_dim", model.head_dim)):
            if value is not None:
                yield key, value, f"no such key {named}"
    elif model.head_channels % 2:
        yield "num_heads", model.num_heads, f"heads of an even number of channels; they have {model.head_channels}"
    if model.num_heads % model.kv_heads:
        yield "num_kv_heads", model.num_kv_heads, f"a divisor of model.num_heads = {model.num_heads}"
