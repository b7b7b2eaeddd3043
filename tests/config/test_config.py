"""Config: values are read in every notation that people type; every mistake is one line that names its key."""

import copy
import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from support import tiny

from hipgpt.base.errors import UserError
from hipgpt.base.paths import ROOT, SCHEMA
from hipgpt.config.reading import load_config, merge, with_defaults
from hipgpt.config.settings import Config, ModelConfig, SamplingConfig, TrainingConfig
from hipgpt.config.tokenizer_size import tokens_of
from hipgpt.gpt.parameters import parameter_count
from hipgpt.pipeline.sweeps import load_runs

SHIPPED = yaml.safe_load((ROOT / "config.yaml").read_text())
OVERLAYS = sorted((ROOT / "configs").glob("*.yaml"))


def merged(base: Any, changes: Any) -> Any:
    """Return base with changes merged into it, map by map, as Snakemake merges its config files and --config."""
    if not (isinstance(base, dict) and isinstance(changes, dict)):
        return copy.deepcopy(changes)
    return base | {key: merged(base.get(key), value) for key, value in changes.items()}


def load(text: str = "{}") -> Config:
    """Load the shipped config with a YAML text merged into it."""
    return load_config(merged(SHIPPED, yaml.safe_load(text)))


def mistake(text: str) -> str:
    """Return the error message for the shipped config with a YAML text merged into it."""
    with pytest.raises(UserError) as refused:
        load(text)
    message = str(refused.value)
    assert "\n" not in message
    return message


def schema_keys(schema: dict, path: str = "") -> Iterator[tuple[str, dict]]:
    for key, one in schema.get("properties", {}).items():
        yield f"{path}{key}", one
        yield from schema_keys(one, f"{path}{key}.")
    if isinstance(other := schema.get("additionalProperties"), dict):
        yield from schema_keys(other, f"{path}*.")


KEYS = dict(schema_keys(yaml.safe_load(SCHEMA.read_text())))


def test_the_shipped_config_loads_with_one_run():
    config = load()
    assert list(config.runs) == ["default"]
    assert config.runs["default"].model.head_channels == 32


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem)
def test_every_overlay_loads_over_the_shipped_config(overlay):
    config = load(overlay.read_text())
    for run in config.runs.values():
        assert run.model and run.training and run.corpus in config.corpora


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("smollm2-135m", 134_515_008),
        ("qwen3-0.6b", 596_049_920),
        ("gpt2-124m", 124_439_808),
        ("gpt2-350m", 354_823_168),
        ("tinystories", 8_524_032),
        ("fast", 1_608_320),
        ("best", 1_608_320),
    ],
)
def test_a_preset_has_the_parameters_that_it_names(name, parameters):
    run = load((ROOT / "configs" / f"{name}.yaml").read_text()).runs[name]
    assert parameter_count(run.model) == parameters


@pytest.mark.parametrize("name, tokens", [("gpt2-124m", 10e9), ("gpt2-350m", 30e9)])
def test_a_web_preset_sees_the_tokens_that_it_names(name, tokens):
    training = load((ROOT / "configs" / f"{name}.yaml").read_text()).runs[name].training
    per_step = training.batch_sequences * training.accumulation_steps * 1024
    assert per_step == 524_288 and training.steps * per_step == pytest.approx(tokens, rel=1e-3)
    assert training.steps * training.warmup_fraction == pytest.approx(700, rel=3e-3)


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_an_overlay_names_its_run_after_itself_and_so_replaces_none(overlay):
    config = load(overlay.read_text())
    assert config.name == overlay.stem and next(iter(config.runs)) == config.name


def test_a_name_may_be_given_and_is_default_otherwise():
    assert list(load("{name: long, runs: {wide: {}}}").runs) == ["long", "wide"]
    shipped = {key: value for key, value in SHIPPED.items() if key != "name"}
    assert load_config(shipped).name == "default"
    assert mistake("name: a/b").startswith("config: name: got 'a/b', expected string matching ")


@pytest.mark.parametrize("where", ["tokenizer: {{from: {}}}", "runs: {{a: {{tokenizer: {{from: {}}}}}}}"])
def test_the_size_of_an_existing_tokenizer_is_that_of_its_file(tmp_path, where):
    tiny.tokenizer().save(tmp_path / "tokenizer.json")
    config = load_config(merge(SHIPPED, yaml.safe_load(where.format(tmp_path / "tokenizer.json"))))
    assert list(config.runs.values())[-1].vocab_size == tiny.tokenizer().vocab_size
    (tmp_path / "ranks.tiktoken").write_text("IQ== 0\nIg== 1\n")
    assert tokens_of(tmp_path / "ranks.tiktoken") == 3
    (tmp_path / "hole.tiktoken").write_text("IQ== 0\nIg== 4\n")
    assert tokens_of(tmp_path / "hole.tiktoken") == 6
    (tmp_path / "bare.json").write_text('{"model": {"vocab": {"a": 0, "b": 7}}}')
    assert tokens_of(tmp_path / "bare.json") == 8


def test_a_tokenizer_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/tokenizer.json: Not a directory"):
        tokens_of(tmp_path / "file" / "tokenizer.json")


def test_a_project_of_an_earlier_version_keeps_its_own_defaults():
    """It has all required sections, and lacks optional keys that have come since."""
    training = {key: value for key, value in SHIPPED["training"].items() if key != "optimizer"}
    project = {key: value for key, value in SHIPPED.items() if key != "name"} | {"training": training}
    assert with_defaults(project) == project
    assert with_defaults({"name": "other"}) == {**SHIPPED, "name": "other"}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "hub:a/b",
            "config: tokenizer.vocab_size: missing; state the number of tokens of hub:a/b, which a stage fetches",
        ),
        ("nowhere.json", "config: tokenizer.from: nowhere.json: no such file"),
        (
            "config.yaml",
            "config: tokenizer.from: config.yaml: not a tokenizer.json of Hugging Face with byte-level BPE",
        ),
    ],
)
def test_a_size_that_cannot_be_read_must_be_stated(monkeypatch, source, message):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError) as refused:
        load_config(merge(SHIPPED, {"tokenizer": {"from": source}}))
    assert str(refused.value) == message


def test_a_corpus_needs_its_place_only():
    found = load("corpora: {mine: {kind: file, path: [x, y]}}").corpora["mine"]
    assert found == {"kind": "file", "path": ["x", "y"], "cleaning": [], "validation_fraction": 0.1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("architecture: llama", "config: model.activation: got gelu, expected swiglu with model.architecture: llama"),
        ("architecture: llama, activation: swiglu", "config: model.output_bias: got True, expected false with model."),
        ("num_kv_heads: 2", "config: model.num_kv_heads: got 2, expected no such key with model.architecture: gpt2"),
        (
            "architecture: qwen3, activation: swiglu, output_bias: false, num_kv_heads: 3",
            "config: model.num_kv_heads: got 3, expected a divisor of model.num_heads = 4",
        ),
        (
            "architecture: llama, activation: swiglu, output_bias: false, head_dim: 31",
            "config: model.num_heads: got 4, expected heads of an even number of channels; they have 31",
        ),
    ],
)
def test_settings_that_an_architecture_does_not_have_are_refused(text, message):
    assert mistake(f"model: {{{text}}}").startswith(message)


@pytest.mark.parametrize("key", ["runs", "sweep"])
def test_a_list_of_runs_with_nothing_below_it_is_empty(key):
    assert load(f"{key}:") == load() == load_runs({**SHIPPED, key: None})


def test_all_settings_that_an_architecture_does_not_have_are_named_at_once():
    assert mistake("runs: {ll: {model: {architecture: llama}}}") == (
        "config: runs.ll.model.activation: got gelu, expected swiglu with model.architecture: llama; "
        "runs.ll.model.output_bias: got True, expected false with model.architecture: llama"
    )


@pytest.mark.parametrize("key", KEYS)
def test_every_key_of_the_schema_is_described(key):
    assert len(KEYS[key].get("description", "")) >= 10


@pytest.mark.parametrize(
    ("section", "dataclass", "others"),
    [("model", ModelConfig, {"vocab_size"}), ("training", TrainingConfig, set()), ("sampling", SamplingConfig, set())],
)
def test_the_dataclasses_have_the_schema_s_keys(section, dataclass, others):
    keys = set(KEYS[section]["properties"]) - {"trackers"}  # which change no result
    assert {field.name for field in dataclasses.fields(dataclass)} - others == keys - {"prompts", "from"}
    optional = {field.name for field in dataclasses.fields(dataclass) if field.default is not dataclasses.MISSING}
    assert set(KEYS[section]["required"]) == keys - {"from"} - (optional if section != "sampling" else set())


def test_an_optional_key_with_its_default_is_as_if_it_were_absent():
    config = copy.deepcopy(SHIPPED)
    for key in ("optimizer", "muon_learning_rate_peak"):  # which config.yaml states
        del config["training"][key]
    default = load_config(config).runs["default"]
    for section, settings in (("training", default.training), ("model", default.model)):
        for field in dataclasses.fields(settings):
            if field.default is not dataclasses.MISSING and field.default is not None:
                given = merged(config, {section: {field.name: field.default}})
                assert load_config(given).runs["default"].sections == default.sections
                assert getattr(settings, field.name) == field.default


def test_the_rate_of_muon_is_stated_with_muon_even_if_it_is_the_default():
    assert load().runs["default"].sections["training"]["muon_learning_rate_peak"] == 0.01
    assert "muon_learning_rate_peak" not in load("training: {optimizer: adamw}").runs["default"].sections["training"]


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("training: {learning_rate_peak: 3e-4}", "learning_rate_peak", 3e-4),  # YAML reads a string
        ("training: {learning_rate_peak: ' 3E-4 '}", "learning_rate_peak", 3e-4),
        ("training: {learning_rate_peak: '.5'}", "learning_rate_peak", 0.5),
        ("training: {weight_decay: 0}", "weight_decay", 0.0),
        ("training: {steps: '1000'}", "steps", 1000),
        ("training: {steps: 1e3}", "steps", 1000),
        ("training: {steps: 2000.0}", "steps", 2000),
        ("training: {seed: 18446744073709551615}", "seed", 2**64 - 1),
    ],
)
def test_a_number_may_be_written_in_any_way(text, key, value):
    found = getattr(load(text).runs["default"].training, key)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('runs: {"wide\\n": {}}', "runs: got 'wide\\n', expected"),
        ('device: "cpu\\n"', "device: got 'cpu\\n', expected"),
        ("training: {seed: '" + "9" * 5000 + "'}", "training.seed: got"),
        ("training: {steps: 1e308}", "training.steps: got"),
        ("sampling: {num_tokens: 100000000000000000000}", "sampling.num_tokens: got 100000000000000000000, expected"),
        ("train_shards: 99999", "train_shards: got 99999, expected integer >= 1 and <= 4096"),
    ],
)
def test_a_value_out_of_bounds_is_refused_by_its_key(text, message):
    with pytest.raises(UserError) as error:
        load(text)
    assert str(error.value).startswith(f"config: {message}") and "\n" not in str(error.value)


@pytest.mark.parametrize(("text", "value"), [("true", True), ("'True'", True), ("'false'", False)])
def test_a_boolean_may_be_a_string(text, value):
    assert load(f"model: {{tie_embeddings: {text}}}").runs["default"].model.tie_embeddings is value


@pytest.mark.parametrize(("text", "value"), [("null", None), ("'null'", None), ("'none'", None), ("'40'", 40)])
def test_null_may_be_a_string(text, value):
    assert load(f"sampling: {{top_k: {text}}}").runs["default"].sections["sampling"]["top_k"] == value


def test_a_text_stays_a_text():
    config = load("{training: {sample_prompt: '1e3'}, sampling: {prompts: ['true', '12']}}").runs["default"]
    assert config.training.sample_prompt == "1e3"
    assert config.sections["sampling"]["prompts"] == ["true", "12"]


def test_a_run_overrides_nested_keys_and_shares_the_rest():
    runs = load("runs: {wide: {model: {embed_dim: '256'}}, other: {corpus: tiny_shakespeare}}").runs
    assert list(runs) == ["default", "wide", "other"]
    assert runs["wide"].model == dataclasses.replace(runs["default"].model, embed_dim=256)
    assert runs["wide"].training == runs["other"].training == runs["default"].training
    assert runs["other"].corpus == "tiny_shakespeare"


def test_a_run_overrides_a_changed_default():
    runs = load("{training: {steps: 10}, runs: {long: {training: {steps: 20}}, same: {}}}").runs
    assert {name: run.training.steps for name, run in runs.items()} == {"default": 10, "long": 20, "same": 10}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trainin: {}", "config: trainin: unknown key, did you mean 'training'?"),
        ("devices: 3", "config: training.batch_sequences: got 64, expected a multiple of devices = 3, because"),
        ("{devices: 2, device: 'cuda:1'}", "devices: got 2, expected 1 with device: cuda:1, which names one GPU"),
        ("devices: 0", "config: devices: got 0, expected integer or string >= 1"),
        ("devices: all", "config: devices: got 'all', expected "),
        ("model: {embed_dims: 8}", "config: model.embed_dims: unknown key, did you mean 'embed_dim'?"),
        ("model: {xyz: 8}", "config: model.xyz: unknown key; accepted here: embed_dim, num_layers"),
        ("model: {7: 8}", "config: model.7: unknown key; accepted here: "),
        ("runs: {a: {modle: {}}}", "config: runs.a.modle: unknown key, did you mean 'model'?"),
        ("runs: {a: {model: {num_head: 4}}}", "config: runs.a.model.num_head: unknown key, did you mean 'num_heads'?"),
        ("runs: {default: {training: {step: 4}}}", "runs.default.training.step: unknown key, did you mean 'steps'?"),
        ("corpora: {shakespeare: {sha: a}}", "corpora.shakespeare.sha: unknown key, did you mean 'sha256'?"),
        ("corpora: {mine: {path: x}}", "config: corpora.mine.kind: missing; pypi: a source package"),
        ("corpora: {mine: {kind: url, cleaning: [], validation_fraction: 0.1}}", "config: corpora.mine.url: missing"),
        ("training: {steps: many}", "config: training.steps: got 'many', expected integer >= 1 and <= 1000000000 ("),
        ("training: {steps: 1.5}", "config: training.steps: got 1.5, expected integer >= 1 and <= 1000000000 ("),
        ("training: {steps: '1.5'}", "config: training.steps: got '1.5', expected integer >= 1 and <= 1000000000 ("),
        ("training: {steps: 0}", "config: training.steps: got 0, expected integer >= 1 and <= 1000000000 ("),
        ("training: {steps: true}", "config: training.steps: got True, expected integer >= 1 and <= 1000000000 ("),
        ("training: {steps: null}", "config: training.steps: got nothing, expected integer >= 1 and <= 1000000000 ("),
        ("training: {learning_rate_peak: 0}", "config: training.learning_rate_peak: got 0.0, expected number > 0 ("),
        ("training: {drop_probability: 1}", "drop_probability: got 1.0, expected number >= 0 and < 1 (Dropout"),
        ("training: {seed: 18446744073709551616}", "training.seed: got 18446744073709551616, expected integer >= 0"),
        ("training: 5", "config: training: got 5, expected keys and values (AdamW"),
        ("model: {activation: swish}", "config: model.activation: got 'swish', expected one of gelu, relu, relu2,"),
        ("model: {tie_embeddings: 'maybe'}", "config: model.tie_embeddings: got 'maybe', expected boolean ("),
        ("sampling: {prompts: []}", "config: sampling.prompts: got [], expected array of length >= 1 ("),
        ("sampling: {top_k: 0}", "config: sampling.top_k: got 0, expected integer or null >= 1 (Sample among"),
        ("tokenizer: {vocab_size: 256}", "config: tokenizer.vocab_size: got 256, expected integer >= 257 and <= 1677"),
        ("model: {num_heads: 3}", "config: model.num_heads: got 3, expected a divisor of model.embed_dim = 128"),
        ("runs: {a: {model: {embed_dim: 126}}}", "config: runs.a.model.num_heads: got 4, expected a divisor of "),
        ("evaluation: {stride_tokens: 33}", "got 33, expected at most model.context_length = 32"),
        ("corpus: shakespear", "config: corpus: got 'shakespear', expected an entry of corpora: shakespeare, tiny"),
        ("corpus: shakespear", ", did you mean 'shakespeare'?"),
        ("runs: {a: {corpus: books}}", "config: runs.a.corpus: got 'books', expected an entry of corpora: "),
        ("runs: {a: {training: {steps: many}}}", "config: runs.a.training.steps: got 'many', expected integer >= 1"),
        ("runs: {a: {training: 5}}", "config: runs.a.training: got 5, expected keys and values"),
        ("runs: {a: null}", "config: runs.a: got nothing, expected keys and values (Overrides of"),
        ("runs: {a/b: {}}", "config: runs: got 'a/b', expected string matching ^[A-Za-z0-9]"),
        ("runs: {2024: {}}", "config: runs: got 2024, expected string matching ^[A-Za-z0-9]"),
        ("training: {learning_rate_peak: .nan}", "config: training.learning_rate_peak: got 'nan', expected number"),
        ("training: {clip_norm: 1e400}", "config: training.clip_norm: got '1e400', expected number"),
        ("device: gpu", "config: device: got 'gpu', expected string matching"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_with_key_value_and_what_is_accepted(text, message):
    assert message in mistake(text)


def test_all_accepted_keys_are_listed_only_if_none_is_like_the_unknown_one():
    assert mistake("model: {embed_dims: 8}").endswith("unknown key, did you mean 'embed_dim'?")
    assert "accepted here: " in mistake("model: {xyz: 8}")


def test_a_missing_key_is_named():
    config = copy.deepcopy(SHIPPED)
    del config["training"]["steps"]
    with pytest.raises(UserError, match="^config: training.steps: missing; Optimizer steps.$"):
        load_config(config)


def test_a_long_integer_in_a_string_loses_no_digit():
    shipped = yaml.safe_load((ROOT / "config.yaml").read_text())
    shipped["training"]["seed"] = "9007199254740993"
    assert load_config(shipped).runs["default"].training.seed == 9007199254740993


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {embed_dim: 1000000000}", "model.embed_dim: got 1000000000, expected integer >= 1 and <= 65536"),
        ("model: {context_length: 1e9}", "model.context_length: got 1000000000, expected integer >= 2 and <= 1048576"),
        ("training: {accumulation_steps: 1e9}", "training.accumulation_steps: got 1000000000, expected integer >= 1"),
        (
            "training: {batch_sequences: 1e6}",
            "training.batch_sequences: got 1000000, expected at most 131072, because a batch of sequences of 32 holds "
            "at most 4,194,304 tokens; use training.accumulation_steps for larger steps",
        ),
    ],
)
def test_sizes_that_would_take_minutes_only_to_plan_are_refused(text, message):
    with pytest.raises(UserError, match=re.escape(f"config: {message}")):
        load(text)


def test_gradients_in_bfloat16_need_activations_in_bfloat16():
    text = "training: {reduce_precision: bfloat16, precision: float32}"
    assert mistake(text) == (
        "config: training.reduce_precision: got bfloat16, expected float32 with training.precision: float32"
    )
    assert load("training: {reduce_precision: bfloat16}")
