"""Write a finished model as a Hugging Face directory: weights, config.json, the tokenizer's files and a model card."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hipgpt.base.errors import UserError
from hipgpt.base.files import replacing
from hipgpt.base.json_files import write_json
from hipgpt.config.huggingface import CONFIG, TOKENIZER, WEIGHTS
from hipgpt.config.settings import ModelConfig
from hipgpt.data.tokenizer.tokenizer import Tokenizer
from hipgpt.data.tokenizer.write_formats import tokenizer_config
from hipgpt.gpt.checkpoint import load_model, save_tensors
from hipgpt.gpt.parameters import INITIAL_STD
from hipgpt.interchange.pretrained import CLASSES, HEAD, weight_names

FILES = (WEIGHTS, CONFIG, "generation_config.json", TOKENIZER, "tokenizer_config.json", "README.md")
ACTIVATION_NAMES = {"gelu": "gelu_new", "relu": "relu", "relu2": "relu2"}  # its "gelu" is the exact one, with erf


def export_huggingface(run: Path, tokenizer: Tokenizer, folder: Path, card: str) -> list[Path]:
    """Write a directory that AutoModelForCausalLM and AutoTokenizer of transformers load. Return its files.

    run: the folder of a trained run; card: the text of its model card. Raises UserError if its best checkpoint is
    damaged or belongs to another tokenizer, or if its output bias cannot be folded.
    """
    model, arrays = load_model(run / "checkpoints" / "best.safetensors", tokenizer.sha256)
    weights = huggingface_arrays(model, arrays)
    save_tensors(folder / WEIGHTS, weights, {"format": "pt"})
    write_json(folder / CONFIG, huggingface_config(model, tokenizer.end_of_text, HEAD not in weights))
    write_json(folder / "tokenizer_config.json", tokenizer_config(model.context_length))
    write_json(folder / "generation_config.json", generation_config(tokenizer.end_of_text))
    tokenizer.save(folder / TOKENIZER)
    with replacing(folder / "README.md") as file:
        file.write(card.encode())
    return [folder / name for name in FILES]


def huggingface_arrays(model: ModelConfig, arrays: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """Return the weights with the architecture's names and layouts. A head is included if it is not the embedding."""
    arrays = with_gpt2_head(model, arrays)
    found = {name.theirs: name.of(arrays[name.ours]) for name in weight_names(model)}
    return found | ({HEAD: arrays["output.weight"]} if model.output_bias else {})


def with_gpt2_head(model: ModelConfig, arrays: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """Return the weights by our names, with output.weight and without output.bias: `fold_output_bias` removes it."""
    found = {"output.weight": arrays["token_embedding.weight"], **arrays}
    if model.output_bias:
        gamma, beta = found["final_norm.gamma"], found["final_norm.beta"]
        folded = fold_output_bias(found["output.weight"], found.pop("output.bias"), gamma, beta)
        found["output.weight"], found["final_norm.beta"] = folded
    return found


def fold_output_bias(
    weight: NDArray[np.float32], bias: NDArray[np.float32], gamma: NDArray[np.float32], beta: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return (weight', beta') with weight' (gamma n + beta') = weight (gamma n + beta) + bias for every normalized n.

    The head of GPT-2 has no bias. A normalized row n sums to 0, so v = 1 / (E gamma) gives v . (gamma n) = 0. With
    t = 1 - mean(beta / gamma), beta' = beta + t gamma gives v . beta' = 1. Therefore the rank-one term
    (bias - t weight gamma) v^T, added to weight, adds the bias and cancels the effect of the change of beta.
    weight (V, E); bias (V); gamma, beta (E). Computed in f64. Raises UserError if a gamma is 0.
    """
    if not np.all(gamma):
        zeros = int((gamma == 0).sum())
        raise UserError(
            f"final_norm.gamma: {zeros} of {gamma.size} values are 0, so the output bias cannot be folded into "
            "GPT-2's head, which has none; train with model.output_bias: false"
        )
    w, b, g, shift = (array.astype(np.float64) for array in (weight, bias, gamma, beta))
    t = 1 - np.mean(shift / g)
    folded = w + np.outer(b - t * (w @ g), 1 / (g.size * g))
    return folded.astype(np.float32), (shift + t * g).astype(np.float32)


def huggingface_config(model: ModelConfig, end_of_text: int, tied: bool) -> dict[str, Any]:
    """Return the content of config.json. tied: whether the head is the token embedding."""
    return (_gpt2_sizes if model.architecture == "gpt2" else _llama_sizes)(model) | {
        "model_type": model.architecture,
        "architectures": [CLASSES[model.architecture]],
        "vocab_size": model.vocab_size,
        "initializer_range": INITIAL_STD,
        "tie_word_embeddings": tied,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "torch_dtype": "float32",
    }


def _llama_sizes(model: ModelConfig) -> dict[str, Any]:
    return {
        "hidden_size": model.embed_dim,
        "intermediate_size": model.mlp_dim,
        "num_hidden_layers": model.num_layers,
        "num_attention_heads": model.num_heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.head_channels,
        "hidden_act": "silu",
        "max_position_embeddings": model.context_length,
        "rms_norm_eps": model.norm_epsilon,
        "rope_theta": model.rope_base,
        "rope_parameters": {"rope_type": "default", "rope_theta": model.rope_base},  # where transformers 5 looks
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "use_sliding_window": False,
    }


def _gpt2_sizes(model: ModelConfig) -> dict[str, Any]:
    return {
        "n_positions": model.context_length,
        "n_embd": model.embed_dim,
        "n_layer": model.num_layers,
        "n_head": model.num_heads,
        "n_inner": model.mlp_dim,
        "activation_function": ACTIVATION_NAMES[model.activation],
        "layer_norm_epsilon": model.norm_epsilon,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "attn_pdrop": 0.0,
    }


def generation_config(end_of_text: int) -> dict[str, Any]:
    """Return the content of generation_config.json: the end-of-text token begins, ends and pads generation."""
    return {"bos_token_id": end_of_text, "eos_token_id": end_of_text, "pad_token_id": end_of_text}
