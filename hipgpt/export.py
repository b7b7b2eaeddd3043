"""The finished model as a Hugging Face directory: model.safetensors, config.json and the tokenizer's files."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hipgpt.checkpoint import load_model, save_tensors
from hipgpt.config import ModelConfig
from hipgpt.errors import UserError
from hipgpt.files import replacing
from hipgpt.model import INITIAL_STD, LAYERNORM_EPSILON
from hipgpt.tokenizer import Tokenizer
from hipgpt.tokenizer.formats import tokenizer_config

ACTIVATION_NAMES = {"gelu": "gelu_new", "relu": "relu"}
# ours -> GPT-2's; its Conv1D layers keep weights as (in, out), ours are (out, in)
LINEAR = {"qkv": "attn.c_attn", "projection": "attn.c_proj", "mlp_in": "mlp.c_fc", "mlp_out": "mlp.c_proj"}
NORMS = {"attention_norm": "ln_1", "mlp_norm": "ln_2"}


def export_huggingface(checkpoint: Path, tokenizer: Tokenizer, folder: Path) -> None:
    """Write the directory that transformers' AutoModelForCausalLM and AutoTokenizer load.

    Raises UserError if the checkpoint is damaged, of another tokenizer, or its output bias cannot be folded.
    """
    model, arrays = load_model(checkpoint, tokenizer.sha256)
    weights = huggingface_arrays(model, arrays)
    save_tensors(folder / "model.safetensors", weights, {"format": "pt"})
    _write_json(
        folder / "config.json", huggingface_config(model, tokenizer.end_of_text, "lm_head.weight" not in weights)
    )
    _write_json(folder / "tokenizer_config.json", tokenizer_config(model.context_length))
    tokenizer.save(folder / "tokenizer.json")


def huggingface_arrays(model: ModelConfig, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the weights under GPT-2's names and layouts, the output bias folded into the head (`fold_output_bias`)."""
    head = arrays["token_embedding.weight" if model.tie_embeddings else "output.weight"]
    beta = arrays["final_norm.beta"]
    if model.output_bias:
        head, beta = fold_output_bias(head, arrays["output.bias"], arrays["final_norm.gamma"], beta)
    found = {
        "transformer.wte.weight": arrays["token_embedding.weight"],
        "transformer.wpe.weight": arrays["position_embedding.weight"],
        "transformer.ln_f.weight": arrays["final_norm.gamma"],
        "transformer.ln_f.bias": beta,
    }
    for i in range(model.num_layers):
        for ours, theirs in LINEAR.items():
            found[f"transformer.h.{i}.{theirs}.weight"] = np.ascontiguousarray(arrays[f"block{i}.{ours}.weight"].T)
            found[f"transformer.h.{i}.{theirs}.bias"] = arrays[f"block{i}.{ours}.bias"]
        for ours, theirs in NORMS.items():
            found[f"transformer.h.{i}.{theirs}.weight"] = arrays[f"block{i}.{ours}.gamma"]
            found[f"transformer.h.{i}.{theirs}.bias"] = arrays[f"block{i}.{ours}.beta"]
    if model.output_bias or not model.tie_embeddings:
        found["lm_head.weight"] = head
    return found


def fold_output_bias(
    weight: np.ndarray, bias: np.ndarray, gamma: np.ndarray, beta: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return (weight', beta') with weight' (gamma n + beta') = weight (gamma n + beta) + bias for every normalized n.

    GPT-2's head has no bias. A normalized row n sums to 0, so v = 1 / (E gamma) gives v . (gamma n) = 0, and with
    t = 1 - mean(beta / gamma), beta' = beta + t gamma gives v . beta' = 1: the rank-one term
    (bias - t weight gamma) v^T adds the bias and takes back what beta' changed. weight (V, E), computed in f64.
    Raises UserError if a gamma is 0.
    """
    if not np.all(gamma):
        zeros = int((gamma == 0).sum())
        raise UserError(
            f"final_norm.gamma: {zeros} of {gamma.size} values are 0, so GPT-2's head, which has no bias, cannot carry "
            "the output bias; train with model.output_bias: false"
        )
    w, b, g, shift = (array.astype(np.float64) for array in (weight, bias, gamma, beta))
    t = 1 - np.mean(shift / g)
    folded = w + np.outer(b - t * (w @ g), 1 / (g.size * g))
    return folded.astype(np.float32), (shift + t * g).astype(np.float32)


def huggingface_config(model: ModelConfig, end_of_text: int, tied: bool) -> dict[str, Any]:
    """Return config.json's content; tied: whether the head is the token embedding."""
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": model.vocab_size,
        "n_positions": model.context_length,
        "n_embd": model.embed_dim,
        "n_layer": model.num_layers,
        "n_head": model.num_heads,
        "n_inner": model.mlp_dim,
        "activation_function": ACTIVATION_NAMES[model.activation],
        "layer_norm_epsilon": LAYERNORM_EPSILON,
        "initializer_range": INITIAL_STD,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "tie_word_embeddings": tied,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "torch_dtype": "float32",
    }


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    with replacing(path) as file:
        file.write(json.dumps(document, indent=2).encode() + b"\n")
