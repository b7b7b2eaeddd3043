"""`model.from`: training starts from the weights and tokenizer of a GPT-2 in a Hugging Face directory."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file, save_file
from support import tiny
from support.workflow_copy import ROOT, TINY, Project

from hipgpt.base.errors import UserError
from hipgpt.config.huggingface import files_sha256, model_section
from hipgpt.config.reading import load_config
from hipgpt.config.settings import Config, ModelConfig
from hipgpt.config.stated import model_from
from hipgpt.gpt.checkpoint import load_model
from hipgpt.interchange.huggingface import export_huggingface
from hipgpt.interchange.pretrained import read_weights
from hipgpt.pipeline.history import run_files
from hipgpt.pipeline.recipes import Recipes

SHIPPED = yaml.safe_load((ROOT / "config.yaml").read_text())
GPT2 = replace(tiny.MODEL, output_bias=False)
TOKENS = [1, 299, 3, 4, 250, 6, 7, 8]


def directory(folder: Path, model: ModelConfig = GPT2) -> Path:
    """Write a Hugging Face directory. test_export.py proves that it equals the checkpoint."""
    run = tiny.save_run(folder, model=model)
    export_huggingface(run, tiny.tokenizer(), folder / "gpt2", "a card")
    shutil.rmtree(folder / "runs")
    return folder / "gpt2"


def load(folder: Path, **sections: dict) -> Config:
    config = {**SHIPPED, **{key: {**SHIPPED[key], **value} for key, value in sections.items()}}
    config["model"] = {**config["model"], "from": str(folder)}
    return load_config({**config, "evaluation": {"stride_tokens": 4}})


def change_config(folder: Path, **fields) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    return folder


def change_weights(folder: Path, change) -> Path:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("activation", ["gelu", "relu", "relu2"])
def test_model_and_weights_come_back_as_they_were_written(tmp_path, tied, activation):
    model = replace(GPT2, tie_embeddings=tied, activation=activation)
    folder = directory(tmp_path, model)
    run = load(folder).runs["default"]
    assert run.model == model
    assert run.sections["tokenizer"] == {"from": str(folder / "tokenizer.json"), "vocab_size": 300}
    found, expected = read_weights(folder, run.model), tiny.draw_arrays(model)
    assert found.keys() == expected.keys()
    assert all((found[name] == expected[name]).all() and found[name].flags.c_contiguous for name in expected)


def test_names_without_prefix_masks_and_float16_are_read(tmp_path):
    def as_older_files_have_it(weights):
        half = {name.removeprefix("transformer."): array.astype(np.float16) for name, array in weights.items()}
        weights.clear()
        weights |= half | {"h.0.attn.bias": np.ones((1, 1, 8, 8), np.float32)}

    folder = change_weights(directory(tmp_path), as_older_files_have_it)
    expected = tiny.draw_arrays(GPT2)
    for name, array in read_weights(folder, GPT2).items():
        assert array.dtype == np.float32 and (array == expected[name].astype(np.float16)).all()


def test_n_inner_and_absent_fields_have_gpt2_s_defaults(tmp_path):
    folder = directory(tmp_path, replace(GPT2, mlp_dim=48, tie_embeddings=True))
    document = json.loads((folder / "config.json").read_text())
    for field in ("activation_function", "tie_word_embeddings", "layer_norm_epsilon"):
        del document[field]
    (folder / "config.json").write_text(json.dumps({**document, "n_inner": None}))
    section = model_section(folder)
    assert (section["mlp_dim"], section["activation"], section["tie_embeddings"]) == (48, "gelu", True)


REFUSED_CONFIGS = {
    "model_type": ("mamba", "gpt2 or llama or qwen3"),
    "layer_norm_epsilon": (1e-6, "1e-05"),
    "scale_attn_by_inverse_layer_idx": (True, "False"),
    "activation_function": ("gelu", "gelu_new or gelu_pytorch_tanh or relu or relu2"),
    "n_embd": (0, "a whole number above 0"),
    "n_layer": ("many", "a whole number above 0"),
    "n_head": (True, "a whole number above 0"),
    "vocab_size": (None, "a whole number above 0"),
    "n_positions": (1 << 40, "a whole number above 0"),
    "tie_word_embeddings": ("yes", "true or false"),
}


@pytest.mark.parametrize("field", REFUSED_CONFIGS)
def test_a_config_of_another_model_is_refused_by_file_and_field(tmp_path, field):
    got, expected = REFUSED_CONFIGS[field]
    folder = change_config(directory(tmp_path), **{field: got})
    with pytest.raises(UserError) as refused:
        load(folder)
    assert f"{folder}/config.json: {field}: got {str(got)!r}, expected {expected}; " in str(refused.value)


def test_sizes_that_the_file_cannot_hold_are_refused_before_anything_is_allocated(tmp_path):
    folder = change_config(directory(tmp_path), n_embd=1 << 30, n_layer=1 << 30)
    with pytest.raises(UserError, match=r"config.json: its sizes give at least [\d,]+ weights, which do not fit into"):
        load(folder)


@pytest.mark.parametrize(
    "text", [b"", b"[" * 100_000, b"[]", b"\xff", b" " * (2 << 20)], ids=lambda text: f"{text[:2]}"
)
def test_a_config_json_of_another_form_is_refused(tmp_path, text):
    folder = directory(tmp_path)
    (folder / "config.json").write_bytes(text)
    with pytest.raises(UserError, match="config.json: "):
        load(folder)


def test_a_pickle_is_refused_with_the_remedy(tmp_path):
    folder = directory(tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(
        UserError,
        match=r"pytorch_model.bin is a pickle, which is not read because it may run code; load .* save_pretrained\(",
    ):
        load(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_an_absent_file_is_named(tmp_path, name):
    folder = directory(tmp_path)
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"{folder}/{name}: .*save_pretrained"):
        load(folder)


def pop(name: str):
    return lambda weights: weights.pop(name)


def add(name: str, array: np.ndarray):
    return lambda weights: weights.update({name: array})


C_PROJ = "transformer.h.0.mlp.c_proj.weight"
REFUSED_WEIGHTS = {
    "missing": (pop(C_PROJ), rf"{C_PROJ} is missing, 1 in all; use a GPT2LMHeadModel"),
    "too many": (add("transformer.h.2.ln_1.weight", np.ones(12)), "h.2.ln_1.weight is not a weight of the GPT-2 that"),
    "transposed": (
        add(C_PROJ, np.ones((12, 20), np.float32)),
        rf"{C_PROJ}: got F32 \(12, 20\), expected F32 or F16 or BF16 \(20, 12\) according to config.json",
    ),
    "of integers": (add(C_PROJ, np.ones((20, 12), np.int32)), rf"{C_PROJ}: got I32 \(20, 12\), expected F32 or F16"),
}


@pytest.mark.parametrize("what", REFUSED_WEIGHTS)
def test_weights_that_do_not_fit_are_refused_by_name(tmp_path, what):
    change, message = REFUSED_WEIGHTS[what]
    with pytest.raises(UserError, match=message):
        read_weights(change_weights(directory(tmp_path), change), GPT2)


def test_a_truncated_file_is_refused(tmp_path):
    path = directory(tmp_path) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(UserError, match=r"model.safetensors: not a whole safetensors file .*; download it again"):
        read_weights(path.parent, GPT2)


def test_another_tokenizer_and_stated_sizes_are_refused(tmp_path):
    folder = directory(tmp_path)
    with pytest.raises(
        UserError, match=r"tokenizer.from: got 'other.json', but the weights of model.from were trained"
    ):
        load(folder, tokenizer={"from": "other.json"})
    with pytest.raises(UserError, match=r"runs.wide.model.embed_dim: config.json of model.from determines it"):
        load_config({**SHIPPED, "runs": {"wide": {"model": {"from": str(folder), "embed_dim": 64}}}})
    with pytest.raises(UserError, match=r"runs.wide.tokenizer.vocab_size: tokenizer.json of model.from determines it"):
        load_config({**SHIPPED, "runs": {"wide": {"model": {"from": str(folder)}, "tokenizer": {"vocab_size": 500}}}})


def test_the_recipe_of_training_knows_the_content_of_the_files(tmp_path):
    folder = directory(tmp_path)
    before = Recipes(load(folder)).of_run("train", "default")
    assert before["pretrained_sha256"] == files_sha256(folder)
    change_weights(folder, lambda weights: weights[C_PROJ].__iadd__(1))
    assert Recipes(load(folder)).of_run("train", "default") != before
    assert "pretrained_sha256" not in Recipes(load_config(SHIPPED)).of_run("train", "default")


@pytest.mark.slow
def test_the_workflow_begins_with_the_weights_and_reruns_when_they_change(tmp_path):
    project = Project(tmp_path / "project")
    directory(project.folder)
    training = {**TINY["training"], "steps": 1, "learning_rate_peak": 1e-30, "weight_decay": 0}
    project.write_config({**TINY, "training": training, "runs": {"tuned": {"model": {"from": "gpt2"}}}})
    target = "results/runs/tuned/model/README.md"
    project.snakemake(target)
    run = project.folder / "results/runs/tuned"
    model, arrays = load_model(run / "checkpoints" / "best.safetensors", tiny.tokenizer().sha256)
    assert model == GPT2
    assert all((arrays[name] == array).all() for name, array in tiny.draw_arrays(GPT2).items())
    record = json.loads((run / "run.json").read_text())
    assert model_from(record["config"]["model"]) == GPT2
    assert record["pretrained_sha256"] == files_sha256(project.folder / "gpt2")
    card = (project.folder / target).read_text()
    assert "starting from the weights of the folder `gpt2` whose hashes are given below." in card
    assert "Nothing to be done" in project.snakemake("--dry-run", target)
    change_weights(project.folder / "gpt2", lambda weights: weights[C_PROJ].__iadd__(1))
    assert "train tuned\n" in project.snakemake("--dry-run", target)


@pytest.mark.slow
def test_refused_weights_leave_a_finished_run_as_it_was(changed):
    project = changed
    run = project.folder / "results/runs/default"
    before = {file: file.read_bytes() for file in run_files(run)}
    change_weights(directory(project.folder), pop(C_PROJ))
    project.write_config({**TINY, "runs": {"default": {"model": {"from": "gpt2"}}}})
    output = project.snakemake("all", expect=1)
    assert f"error: run default: gpt2/model.safetensors: {C_PROJ} is missing" in output and "Traceback" not in output
    assert {file: file.read_bytes() for file in run_files(run)} == before


@pytest.mark.parametrize("tied", [True, False])
def test_a_random_gpt2_of_transformers_gives_its_logits_here(device, tmp_path, tied):
    torch, transformers = (pytest.importorskip(name, reason=tiny.WITHOUT_INTEROP) for name in ("torch", "transformers"))
    torch.manual_seed(1)
    sizes = {"vocab_size": 300, "n_positions": 8, "n_embd": 12, "n_layer": 2, "n_head": 3}
    config = transformers.GPT2Config(**sizes, tie_word_embeddings=tied, initializer_range=0.1, bos_token_id=299)
    theirs = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():  # as in tiny.draw_arrays
            if "wte" in name or "wpe" in name:
                parameter.mul_(40)
            elif "bias" in name or ".ln_" in name:
                parameter.add_(torch.randn_like(parameter) / 10)
        expected = theirs(torch.tensor([TOKENS])).logits[0].numpy()
    theirs.save_pretrained(tmp_path)
    tiny.tokenizer().save(tmp_path / "tokenizer.json")
    model = load(tmp_path).runs["default"].model
    assert (model.tie_embeddings, model.mlp_dim) == (tied, 48)
    arrays = read_weights(tmp_path, model)
    ours = tiny.network_logits(device, model, tiny.place(device, model, arrays), TOKENS)
    bound = 2 * tiny.logits(model, arrays, TOKENS).error  # each of the two computations is within it
    assert bound.max() < 2e-3 * np.ptp(ours)
    assert (np.abs(ours - expected) <= bound).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_refused_by_name(tmp_path, value):
    folder = directory(tmp_path)
    run = load(change_weights(folder, lambda weights: weights["transformer.wte.weight"].__setitem__((1, 2), value)))
    with pytest.raises(UserError, match="transformer.wte.weight: element 14: got (nan|inf), expected finite weights"):
        read_weights(folder, run.runs["default"].model)
