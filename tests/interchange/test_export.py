"""Export: a GPT-2 that is computed from the files of the Hugging Face directory has the logits of our checkpoint."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file
from support import tiny
from support.rounding import F32_ROUNDOFF, Rounded, matmul

from hipgpt.base.errors import UserError
from hipgpt.compute.backends.cpu import CpuDevice
from hipgpt.config.settings import NORM_EPSILON, ModelConfig, SamplingConfig
from hipgpt.gpt.checkpoint import load_model
from hipgpt.gpt.decoder import Decoder
from hipgpt.inference.sampling import generate_one
from hipgpt.interchange.huggingface import export_huggingface, fold_output_bias
from hipgpt.reports.model_card import model_card

TOKENS = [1, 299, 3, 4, 250, 6, 7, 8]
HEADS = [{"tie_embeddings": tied, "output_bias": bias} for tied, bias in product((True, False), repeat=2)]
SHAPES = [{**head, "activation": activation} for head, activation in product(HEADS, ("gelu", "relu", "relu2"))]


def exported(tmp_path: Path, changes: dict) -> tuple[ModelConfig, Path]:
    """Save a checkpoint and export it; return its model and the directory."""
    model = replace(tiny.MODEL, **changes)
    run = tiny.save_run(tmp_path, model=model)
    export_huggingface(run, tiny.tokenizer(), run / "model", model_card(run, {}))
    return model, run / "model"


def gpt2(folder: Path, tokens: list[int]) -> np.ndarray:
    """Return the logits (S, V) f64 of a Hugging Face GPT-2, after their modeling_gpt2.py, without any of our code."""
    config = json.loads((folder / "config.json").read_text())
    w = {name: array.astype(np.float64) for name, array in load_file(folder / "model.safetensors").items()}
    activate = ACTIVATIONS[config["activation_function"]]
    S, heads = len(tokens), config["n_head"]

    def conv1d(x: np.ndarray, name: str) -> np.ndarray:  # weights are (in, out)
        return x @ w[f"{name}.weight"] + w[f"{name}.bias"]

    def layernorm(x: np.ndarray, name: str) -> np.ndarray:
        variance = x.var(1, keepdims=True) + config["layer_norm_epsilon"]
        return (x - x.mean(1, keepdims=True)) / np.sqrt(variance) * w[f"{name}.weight"] + w[f"{name}.bias"]

    def attention(x: np.ndarray, name: str) -> np.ndarray:
        parts = np.split(conv1d(x, f"{name}.c_attn"), 3, axis=1)
        q, k, v = (part.reshape(S, heads, -1).transpose(1, 0, 2) for part in parts)
        scores = np.where(np.tri(S, dtype=bool), q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[2]), -np.inf)
        p = np.exp(scores - scores.max(2, keepdims=True))
        y = p / p.sum(2, keepdims=True) @ v
        return conv1d(y.transpose(1, 0, 2).reshape(S, -1), f"{name}.c_proj")

    x = w["transformer.wte.weight"][tokens] + w["transformer.wpe.weight"][:S]
    for i in range(config["n_layer"]):
        block = f"transformer.h.{i}"
        x = x + attention(layernorm(x, f"{block}.ln_1"), f"{block}.attn")
        hidden = activate(conv1d(layernorm(x, f"{block}.ln_2"), f"{block}.mlp.c_fc"))
        x = x + conv1d(hidden, f"{block}.mlp.c_proj")
    head = "transformer.wte.weight" if config["tie_word_embeddings"] else "lm_head.weight"
    return layernorm(x, "transformer.ln_f") @ w[head].T


def gelu_new(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


ACTIVATIONS = {
    "gelu_new": gelu_new,
    "relu": lambda x: np.maximum(x, 0),
    "relu2": lambda x: np.maximum(x, 0) ** 2,
}


def as_exported(model: ModelConfig, arrays: dict, folder: Path) -> Rounded:
    """Return the exported head's logits: its bounds hold for any f32 evaluation, with the head's own rounding to f32.

    Where the output bias is folded, weight' and beta' stand in the file within one unit roundoff of the exact ones.
    """
    if not model.output_bias:
        return tiny.logits(model, arrays, TOKENS)
    stored = load_file(folder / "model.safetensors")
    head, beta = stored["lm_head.weight"], stored["transformer.ln_f.bias"]
    # the hidden state is what an output layer of the identity gives
    identity = {**arrays, "final_norm.beta": beta, "output.weight": np.eye(model.embed_dim, dtype=np.float32)}
    identity.pop("output.bias")
    hidden = tiny.logits(replace(model, tie_embeddings=False, output_bias=False), identity, TOKENS)
    hidden = Rounded(hidden.value, hidden.error + F32_ROUNDOFF * np.abs(beta))
    return matmul(hidden, Rounded(head, F32_ROUNDOFF * np.abs(head)).transpose(1, 0))


@pytest.mark.parametrize("changes", SHAPES, ids=str)
def test_a_float64_gpt2_of_the_directory_gives_the_checkpoint_s_logits(device, tmp_path, changes):
    model, folder = exported(tmp_path, changes)
    arrays = tiny.draw_arrays(model)
    ours = tiny.network_logits(device, model, tiny.place(device, model, arrays), TOKENS)
    bound = tiny.logits(model, arrays, TOKENS).error + as_exported(model, arrays, folder).error
    assert bound.max() < 2e-3 * np.ptp(ours)
    assert (np.abs(gpt2(folder, TOKENS) - ours) <= bound).all()


@pytest.mark.parametrize("changes", SHAPES, ids=str)
def test_transformers_gives_the_checkpoint_s_logits_and_misses_no_weight(device, tmp_path, changes):
    torch, transformers = (pytest.importorskip(name, reason=tiny.WITHOUT_INTEROP) for name in ("torch", "transformers"))
    model, folder = exported(tmp_path, changes)
    arrays = tiny.draw_arrays(model)
    theirs, loading = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(loading.values()), loading
    with torch.no_grad():
        found = theirs.eval()(torch.tensor([TOKENS])).logits[0].numpy()
    ours = tiny.network_logits(device, model, tiny.place(device, model, arrays), TOKENS)
    bound = tiny.logits(model, arrays, TOKENS).error + as_exported(model, arrays, folder).error
    assert (np.abs(found - ours) <= bound).all()


def test_transformers_tokenizes_as_we_do(tmp_path):
    transformers = pytest.importorskip("transformers", reason=tiny.WITHOUT_INTEROP)
    _, folder = exported(tmp_path, {})
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    text = tiny.TEXT.decode() + " \n\n\tnaïve 'tis I'll 12345 <|endoftext|> 🎭"
    assert theirs(text)["input_ids"] == tiny.tokenizer().encode(text).tolist()
    assert theirs.decode(theirs(text)["input_ids"]) == text
    assert theirs.eos_token_id == theirs.bos_token_id == tiny.tokenizer().end_of_text
    assert theirs.model_max_length == tiny.MODEL.context_length


def test_the_snippet_of_the_card_gives_the_model_s_own_continuation(tmp_path):
    """The tokenizer's other outputs must not reach the model: token_type_ids add an embedding to every position."""
    torch, transformers = (pytest.importorskip(name, reason=tiny.WITHOUT_INTEROP) for name in ("torch", "transformers"))
    model, folder = exported(tmp_path, {})
    snippet = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[1]
    snippet = snippet.replace("path/to/this/directory", str(folder))
    program = snippet.replace("do_sample=True", "do_sample=False").replace('"Once"', '"the"')
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    prompt = tiny.tokenizer().encode("the").tolist()
    decoder = Decoder(CpuDevice(1), model, tiny.place(CpuDevice(1), model, tiny.draw_arrays(model)))
    new_tokens = int(re.search(r"max_new_tokens=(\d+)", snippet)[1])
    assert len(prompt) + new_tokens <= model.context_length
    tokens = generate_one(decoder, prompt, SamplingConfig(new_tokens, temperature=0), tiny.tokenizer().end_of_text)
    assert done.stdout.rstrip("\n") == tiny.tokenizer().decode([*prompt, *tokens]).decode("utf-8", "replace").rstrip(
        "\n"
    )
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    inputs = transformers.AutoTokenizer.from_pretrained(folder)("the", return_tensors="pt")
    with torch.no_grad():
        assert (theirs(**inputs).logits == theirs(inputs["input_ids"]).logits).all()


def test_config_json_says_the_same_model(tmp_path):
    _, folder = exported(tmp_path, {})
    config = json.loads((folder / "config.json").read_text())
    sizes = {"vocab_size": 300, "n_positions": 8, "n_embd": 12, "n_layer": 2, "n_head": 3, "n_inner": 20}
    assert config.items() >= sizes.items()
    assert config["layer_norm_epsilon"] == NORM_EPSILON
    assert config["activation_function"] == "gelu_new"  # its "gelu" is the exact one, with erf
    assert config["bos_token_id"] == config["eos_token_id"] == tiny.tokenizer().end_of_text


def test_a_folded_bias_is_exact_for_every_normalized_row():
    random = np.random.default_rng(1)
    weight, bias, gamma, beta = (random.normal(size=shape) for shape in ((50, 12), 50, 12, 12))
    rows = random.normal(size=(100, 12))
    rows -= rows.mean(1, keepdims=True)
    folded, shifted = (array.astype(np.float64) for array in fold_output_bias(weight, bias, gamma, beta))
    expected, found = (gamma * rows + beta) @ weight.T + bias, (gamma * rows + shifted) @ folded.T
    magnitude = np.abs(gamma * rows + shifted) @ np.abs(folded).T + np.abs(shifted) @ np.abs(folded).T
    assert (np.abs(found - expected) <= 2 * F32_ROUNDOFF * magnitude).all()


def test_a_gamma_of_zero_is_refused_with_a_remedy():
    gamma = np.array([1, 0, 2], np.float32)
    with pytest.raises(UserError, match=r"final_norm.gamma: 1 of 3 values are 0, .*model.output_bias: false"):
        fold_output_bias(np.ones((4, 3)), np.ones(4), gamma, np.ones(3))


def test_a_checkpoint_of_another_tokenizer_is_refused(tmp_path):
    run = tiny.save_run(tmp_path)
    with pytest.raises(UserError, match="trained with the tokenizer of sha256 .*, but the one in use has 0000"):
        load_model(run / "checkpoints" / "best.safetensors", "0000")


def test_the_model_card_does_not_tell_the_folders_of_this_machine(tmp_path):
    folder = tiny.save_run(tmp_path)
    record = json.loads((folder / "run.json").read_text())
    record["corpus"]["source"] = "/home/ada/web/*.jsonl, ~/notes.txt, https://example.org/a/b.txt"
    (folder / "run.json").write_text(json.dumps(record))
    assert "| *.jsonl, notes.txt, https://example.org/a/b.txt |" in model_card(folder, {})


def test_the_model_card_says_what_the_config_states_of_the_sources(tmp_path):
    folder = tiny.save_run(tmp_path)
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | {"pretrained_sha256": {"config.json": "ef" * 32}}))
    facts = {"license": "cc-by-4.0", "language": "no", "datasets": "ada/plays"}
    _, front, text = model_card(folder, {**facts, "pretrained": "gpt2"}).split("---\n", 2)
    assert facts.items() <= yaml.safe_load(front).items()
    assert "starting from the weights of the folder `gpt2` whose hashes" in text and "licence `cc-by-4.0`" in text


def test_the_model_card_is_filled_from_the_run(tmp_path):
    run = exported(tmp_path, {})[1].parent
    card = (run / "model" / "README.md").read_text()
    head, front, text = card.split("---\n", 2)
    assert head == "" and yaml.safe_load(front).keys() == {"library_name", "pipeline_tag", "tags"}
    first = "A GPT-2 of 9,988 parameters. HipGPT trained it on the corpus `plays`, starting from random weights."
    assert first in text
    cells = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    found = {row[0].removeprefix("| "): row[1].removesuffix(" |") for row in cells}
    record = json.loads((run / "run.json").read_text())
    assert found["sha256"] == record["corpus"]["sha256"]
    assert found["tokenizer_sha256"] == tiny.tokenizer().sha256
    assert found["embed_dim"] == "12" and found["steps"] == "7"
    assert "lowest validation loss of the run, at step 7. Training saw 56 tokens in all." in text
    assert found["model"] == "5.250" and "| 12.5 % | 50.0 % |" in text and found["lzma"] == ""
    assert "$" not in card
    example = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    compile(example, "model card", "exec")
