"""The config.json of a Llama or Qwen3 in a Hugging Face directory, read as this project's `model` section."""

from collections.abc import Callable, Mapping
from typing import Any

SIZES = {
    "hidden_size": "embed_dim",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "intermediate_size": "mlp_dim",
    "max_position_embeddings": "context_length",
}
# Fields that change the arithmetic, with the one value that our kernels support. An absent field has that value.
FIXED = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "rope_scaling": None,
    "use_sliding_window": False,
}
QWEN3_HEAD_DIM = 128  # where its config.json does not say
EPSILON, ROPE_BASE = 1e-6, 10_000.0  # of both families where config.json does not say
Refuse = Callable[[str, Any, str], Exception]  # field, value, what is expected -> the error


def llama_section(
    architecture: str, document: Mapping[str, Any], size: Callable[[str], int], refuse: Refuse
) -> dict[str, Any]:
    """Return the `model` section, with vocab_size, of a config.json.

    size: returns a field that must be a whole number above 0. refuse: returns the error for a field. Raises that error
    for a model that our kernels do not support.
    """
    for field, expected in FIXED.items():
        if (got := document.get(field, expected)) != expected:
            raise refuse(field, got, repr(expected))
    section: dict[str, Any] = {ours: size(theirs) for theirs, ours in SIZES.items()}
    section |= {"vocab_size": size("vocab_size"), "architecture": architecture, "activation": "swiglu"}
    if document.get("num_key_value_heads") not in (None, section["num_heads"]):
        section["num_kv_heads"] = size("num_key_value_heads")
    head_dim = document.get("head_dim")
    if head_dim is None and architecture == "qwen3":
        section["head_dim"] = QWEN3_HEAD_DIM
    elif head_dim is not None and size("head_dim") * section["num_heads"] != section["embed_dim"]:
        section["head_dim"] = head_dim
    tied = document.get("tie_word_embeddings", False)
    if not isinstance(tied, bool):
        raise refuse("tie_word_embeddings", tied, "true or false")
    return section | {
        "tie_embeddings": tied,
        "output_bias": False,
        "norm_epsilon": _number("rms_norm_eps", document.get("rms_norm_eps", EPSILON), refuse),
        "rope_base": _rope_base(document, refuse),
    }


def _rope_base(document: Mapping[str, Any], refuse: Refuse) -> float:
    """Return the base of the rotations: transformers 5 writes it into rope_parameters, version 4 as rope_theta."""
    parameters = document.get("rope_parameters")
    if parameters is None:
        return _number("rope_theta", document.get("rope_theta", ROPE_BASE), refuse)
    if not isinstance(parameters, Mapping) or parameters.get("rope_type", "default") != "default":
        raise refuse("rope_parameters", parameters, "the rope_type default")
    return _number("rope_parameters", parameters.get("rope_theta", ROPE_BASE), refuse)


def _number(field: str, got: Any, refuse: Refuse) -> float:
    if isinstance(got, bool) or not isinstance(got, (int, float)) or not got > 0:
        raise refuse(field, got, "a number above 0")
    return float(got)
