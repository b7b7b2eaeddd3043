"""Llama and Qwen3 go out as directories and GGUF files that transformers reads, and come back as they were written."""

import json
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file, save_file
from support import tiny
from support.workflow_copy import ROOT

from hipgpt.base.errors import UserError
from hipgpt.compute.backends.cpu import CpuDevice
from hipgpt.config.huggingface import files_sha256, model_section
from hipgpt.config.reading import load_config
from hipgpt.config.settings import ModelConfig
from hipgpt.interchange.gguf import export_gguf, interleaved, tensors
from hipgpt.interchange.huggingface import export_huggingface, huggingface_config
from hipgpt.interchange.pretrained import check_weights, read_weights, weight_names

SHIPPED = yaml.safe_load((ROOT / "config.yaml").read_text())
TOKENS = [1, 299, 3, 4, 250, 6, 7, 8]
# the second: heads of the sizes of SmolLM2 (9 queries, 3 keys), tied
GROUPED = replace(tiny.LLAMA, embed_dim=18, num_heads=9, num_kv_heads=3, tie_embeddings=True, rope_base=1e5)
MODELS = {"llama": tiny.LLAMA, "grouped llama": GROUPED, "qwen3": tiny.QWEN3}
every_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)


def directory(folder: Path, model: ModelConfig) -> Path:
    export_huggingface(tiny.save_run(folder, model=model), tiny.tokenizer(), folder / "out", "a card")
    return folder / "out"


def change_config(folder: Path, **fields) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def llama(folder: Path, tokens: list[int]) -> np.ndarray:
    """Return the logits (S, V) f64 of the directory, after modeling_llama.py and modeling_qwen3.py of transformers."""
    config = json.loads((folder / "config.json").read_text())
    w = {name: array.astype(np.float64) for name, array in load_file(folder / "model.safetensors").items()}
    S, D, H, K = len(tokens), *(config[f"{n}"] for n in ("head_dim", "num_attention_heads", "num_key_value_heads"))

    def rmsnorm(x: np.ndarray, name: str) -> np.ndarray:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + config["rms_norm_eps"]) * w[f"{name}.weight"]

    angles = np.outer(np.arange(S), 1 / config["rope_theta"] ** (np.arange(0, D, 2) / D))
    cosines, sines = (np.concatenate([part, part], axis=1) for part in (np.cos(angles), np.sin(angles)))

    def heads(x: np.ndarray, name: str, count: int, norm: str) -> np.ndarray:
        y = (x @ w[f"{name}.weight"].T).reshape(S, count, D)
        y = (rmsnorm(y, norm) if f"{norm}.weight" in w else y).transpose(1, 0, 2)
        if norm:
            y = y * cosines + np.concatenate([-y[..., D // 2 :], y[..., : D // 2]], axis=-1) * sines
        return np.repeat(y, H // count, axis=0)

    x = w["model.embed_tokens.weight"][tokens]
    for i in range(config["num_hidden_layers"]):
        block, attn = f"model.layers.{i}", f"model.layers.{i}.self_attn"
        y = rmsnorm(x, f"{block}.input_layernorm")
        q, k = heads(y, f"{attn}.q_proj", H, f"{attn}.q_norm"), heads(y, f"{attn}.k_proj", K, f"{attn}.k_norm")
        v = heads(y, f"{attn}.v_proj", K, "")
        scores = np.where(np.tri(S, dtype=bool), q @ k.transpose(0, 2, 1) / np.sqrt(D), -np.inf)
        p = np.exp(scores - scores.max(2, keepdims=True))
        y = (p / p.sum(2, keepdims=True) @ v).transpose(1, 0, 2).reshape(S, H * D)
        x = x + y @ w[f"{attn}.o_proj.weight"].T
        y = rmsnorm(x, f"{block}.post_attention_layernorm")
        gate, up = (y @ w[f"{block}.mlp.{name}.weight"].T for name in ("gate_proj", "up_proj"))
        x = x + gate / (1 + np.exp(-gate)) * up @ w[f"{block}.mlp.down_proj.weight"].T
    head = "model.embed_tokens.weight" if config["tie_word_embeddings"] else "lm_head.weight"
    return rmsnorm(x, "model.norm") @ w[head].T


def ours(device, model: ModelConfig) -> tuple[np.ndarray, np.ndarray]:
    """Return the checkpoint's logits (S, V), and twice the bound of any f32 evaluation."""
    arrays = tiny.draw_arrays(model)
    return tiny.network_logits(device, model, tiny.place(device, model, arrays), TOKENS), 2 * tiny.logits(
        model, arrays, TOKENS
    ).error


@every_model
def test_a_float64_model_of_the_directory_gives_the_checkpoint_s_logits(device, tmp_path, model):
    got, bound = ours(device, model)
    assert bound.max() < 1e-2 * np.ptp(got)
    assert (np.abs(llama(directory(tmp_path, model), TOKENS) - got) <= bound).all()


@every_model
def test_transformers_gives_the_checkpoint_s_logits_and_misses_no_weight(device, tmp_path, model):
    torch, transformers = (pytest.importorskip(name, reason=tiny.WITHOUT_INTEROP) for name in ("torch", "transformers"))
    folder = directory(tmp_path, model)
    theirs, loading = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(loading.values()), loading
    assert type(theirs).__name__ == {"llama": "LlamaForCausalLM", "qwen3": "Qwen3ForCausalLM"}[model.architecture]
    with torch.no_grad():
        found = theirs.eval()(torch.tensor([TOKENS])).logits[0].numpy()
    got, bound = ours(device, model)
    assert (np.abs(found - got) <= bound).all()


@every_model
def test_model_and_weights_come_back_as_they_were_written(tmp_path, model):
    folder = directory(tmp_path, model)
    config = {**SHIPPED, "model": {**SHIPPED["model"], "from": str(folder)}, "evaluation": {"stride_tokens": 4}}
    run = load_config(config).runs["default"]
    assert run.model == model
    found, expected = read_weights(folder, run.model), tiny.draw_arrays(model)
    assert found.keys() == expected.keys()
    assert all((found[name] == expected[name]).all() for name in expected)


def sharded(folder: Path) -> Path:
    """Rewrite the weights as bf16 in two files with an index, as large models are published."""
    weights = {
        name: array.astype(ml_dtypes.bfloat16) for name, array in load_file(folder / "model.safetensors").items()
    }
    names, files = sorted(weights), ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    halves = dict(zip(files, (names[::2], names[1::2]), strict=True))
    for file, half in halves.items():
        save_file({name: weights[name] for name in half}, folder / file)
    index = {"weight_map": {name: file for file, half in halves.items() for name in half}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()
    return folder


@every_model
def test_bf16_in_several_files_is_read(tmp_path, model):
    folder = sharded(directory(tmp_path, model))
    found, expected = read_weights(folder, ModelConfig(**model_section(folder))), tiny.draw_arrays(model)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values.astype(ml_dtypes.bfloat16).astype(np.float32))
    assert len(files_sha256(folder)) == 4  # the config, the index and both files


def test_a_missing_file_of_several_is_named(tmp_path):
    folder = sharded(directory(tmp_path, tiny.LLAMA))
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match=r"model-00002-of-00002.safetensors: no such file"):
        model_section(folder)


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "weights.bin", 3])
def test_an_index_that_names_another_place_is_refused(tmp_path, name):
    folder = sharded(directory(tmp_path, tiny.LLAMA))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(UserError, match=r"index.json: got the file .*, expected names of safetensors files"):
        model_section(folder)


@pytest.mark.parametrize("base", [1e4, 5e5])
def test_the_base_of_transformers_4_is_read_too(tmp_path, base):
    folder = directory(tmp_path, tiny.LLAMA)
    change_config(folder, rope_parameters=None, rope_theta=base)
    assert model_section(folder)["rope_base"] == base


REFUSED = {
    "hidden_act": "gelu",
    "attention_bias": True,
    "rope_scaling": {"factor": 2},
    "rope_parameters": {"rope_type": "yarn"},
    "rms_norm_eps": 0,
    "num_key_value_heads": 2,
    "head_dim": 3,
    "tie_word_embeddings": "yes",
}


@pytest.mark.parametrize("field", REFUSED)
def test_what_our_kernels_do_not_compute_is_refused_by_its_field(tmp_path, field):
    folder = directory(tmp_path, tiny.LLAMA)
    change_config(folder, **{field: REFUSED[field]})
    with pytest.raises(UserError, match=r"config.json: "):
        model_section(folder)


def test_a_missing_weight_is_named(tmp_path):
    folder = directory(tmp_path, tiny.LLAMA)
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(
        UserError, match=r"model.layers.1.mlp.up_proj.weight is missing, 1 in all; use a LlamaForCausal"
    ):
        check_weights(folder, tiny.LLAMA)


def test_a_run_may_shorten_the_context_of_rotary_positions(tmp_path):
    folder = directory(tmp_path, replace(tiny.LLAMA, context_length=64))
    runs = {"short": {"model": {"from": str(folder), "context_length": 16}}}
    config = {**SHIPPED, "runs": runs, "evaluation": {"stride_tokens": 4}}
    assert load_config(config).runs["short"].model.context_length == 16


@every_model
def test_names_cover_every_weight_once(model):
    names = [name.theirs for name in weight_names(model)]
    assert len(names) == len(set(names))


@every_model
def test_gguf_holds_sizes_and_every_weight(tmp_path, model):
    gguf = pytest.importorskip("gguf", reason=tiny.WITHOUT_INTEROP)
    export_gguf(tiny.save_run(tmp_path, model=model), tiny.tokenizer(), tmp_path)
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    fields = {name: field.contents() for name, field in reader.fields.items()}
    kind = model.architecture
    assert fields["general.architecture"] == kind
    sizes = {"attention.head_count_kv": model.kv_heads, "attention.key_length": model.head_channels,
             "rope.freq_base": np.float32(model.rope_base), "attention.layer_norm_rms_epsilon": np.float32(
                 model.norm_epsilon)}  # fmt: skip
    assert {key: fields[f"{kind}.{key}"] for key in sizes} == sizes
    stored = {tensor.name: tensor.data for tensor in reader.tensors}
    arrays = tiny.draw_arrays(model)
    expected = tensors(model, {"output.weight": arrays["token_embedding.weight"], **arrays})
    assert stored.keys() == expected.keys()
    assert all((stored[name] == values.reshape(stored[name].shape)).all() for name, values in expected.items())


def test_interleaving_pairs_the_channels_of_both_halves():
    rows = np.arange(12, dtype=np.float32)[:, None]  # two heads of six channels
    assert interleaved(rows, 6).ravel().tolist() == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]


@pytest.mark.parametrize("model", [tiny.LLAMA, tiny.QWEN3], ids=["llama", "qwen3"])
def test_transformers_reads_the_gguf_file_and_gives_the_checkpoint_s_logits(device, tmp_path, model):
    torch, transformers, *_ = (
        pytest.importorskip(name, reason=tiny.WITHOUT_INTEROP)
        for name in ("torch", "transformers", "accelerate", "gguf")
    )
    export_gguf(tiny.save_run(tmp_path, model=model), tiny.tokenizer(), tmp_path / "out")
    content = huggingface_config(model, end_of_text=299, tied=False)
    config = {"llama": transformers.LlamaConfig, "qwen3": transformers.Qwen3Config}[model.architecture](**content)
    read = {"pretrained_model_name_or_path": tmp_path / "out", "gguf_file": "model.gguf"}
    theirs = transformers.AutoModelForCausalLM.from_pretrained(**read, config=config).eval()
    with torch.no_grad():
        found = theirs(torch.tensor([TOKENS])).logits[0].numpy()
    got, bound = ours(device, model)
    assert (np.abs(found - got) <= bound).all()


@pytest.mark.parametrize("model", [tiny.LLAMA, GROUPED, tiny.QWEN3], ids=["llama", "grouped llama", "qwen3"])
def test_llama_cpp_takes_the_same_greedy_tokens(tmp_path, model):
    """llama.cpp leaves halves of characters out of its answer, so only prompts that an ASCII token follows count."""
    xllamacpp, _ = (pytest.importorskip(name, reason=tiny.WITHOUT_INTEROP) for name in ("xllamacpp", "gguf"))
    model = replace(model, context_length=64, tie_embeddings=False)
    arrays, device = tiny.draw_arrays(model), CpuDevice(1)
    weights = tiny.place(device, model, arrays)
    export_gguf(tiny.save_run(tmp_path, model=model), tiny.tokenizer(), tmp_path)
    settings = xllamacpp.CommonParams()
    settings.model.path, settings.n_ctx, settings.n_parallel, settings.warmup = (
        str(tmp_path / "model.gguf"),
        64,
        1,
        False,
    )
    server, random, compared = xllamacpp.Server(settings), np.random.default_rng(3), 0
    for _ in range(20):
        prompt = random.integers(128, size=12).tolist()
        greedy = int(tiny.network_logits(device, model, weights, prompt)[-1].argmax())
        if tiny.tokenizer().token_bytes(greedy).isascii() and greedy != 299:
            request = {"prompt": prompt, "max_tokens": 1, "temperature": 0, "top_k": 1, "logprobs": 1}
            answer = server.handle_completions(request)
            answer = answer if isinstance(answer, dict) else json.loads(answer)
            assert answer["choices"][0]["logprobs"]["content"][0]["id"] == greedy
            compared += 1
    assert compared >= 5
