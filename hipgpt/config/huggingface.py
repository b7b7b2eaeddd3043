"""The config.json of a Hugging Face directory, read as this project's `model` section: GPT-2, Llama and Qwen3."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hipgpt.base.errors import UserError
from hipgpt.base.files import sha256_of
from hipgpt.base.json_files import read_json
from hipgpt.config.architectures import ARCHITECTURES
from hipgpt.config.huggingface_llama import llama_section
from hipgpt.config.settings import NORM_EPSILON, ModelConfig, mistakes

ACTIVATIONS = {"gelu_new": "gelu", "gelu_pytorch_tanh": "gelu", "relu": "relu", "relu2": "relu2"}  # theirs -> ours
CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
INDEX = "model.safetensors.index.json"  # of weights in several files
SIZES = {"n_embd": "embed_dim", "n_layer": "num_layers", "n_head": "num_heads", "n_positions": "context_length"}
# Fields that change the arithmetic, with the one value that our kernels support. An absent field has that value.
FIXED = {
    "layer_norm_epsilon": NORM_EPSILON,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}
MOST_CONFIG_BYTES, MOST_INDEX_BYTES = 1 << 20, 1 << 26
LEAST_WEIGHT_BYTES = 2  # float16


def model_section(folder: Path) -> dict[str, Any]:
    """Return the `model` section, with vocab_size, of the config.json in a directory.

    Raises UserError, naming file and field, if the directory does not hold a model that our kernels support, or if the
    sizes are larger than the file of weights can hold. This is checked before anything is allocated.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise UserError(
            f"{path}: no such file; model.from must be a directory with {CONFIG}, {WEIGHTS} and {TOKENIZER}, "
            "written by save_pretrained of Hugging Face's transformers"
        )
    document = read_json(path, {}, "download it again", MOST_CONFIG_BYTES)
    kind = document.get("model_type")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        raise _refusal(path, "model_type", kind, " or ".join(ARCHITECTURES), "use one of these")
    if kind == "gpt2":
        section = _gpt2_section(path, document)
    else:
        section = llama_section(
            kind,
            document,
            lambda field: _size(path, document, field),
            lambda field, got, expected: _refusal(path, field, got, expected, f"use a {kind} that has it"),
        )
    _check_files(folder, section)
    for key, got, expected in mistakes(ModelConfig(**section)):
        raise _refusal(path, f"{key} of the model", got, expected, "use another model")
    return section


def _gpt2_section(path: Path, document: dict[str, Any]) -> dict[str, Any]:
    for field, expected in FIXED.items():
        if (got := document.get(field, expected)) != expected:
            raise _refusal(path, field, got, repr(expected), "use a GPT-2 that has it")
    sizes = {theirs: _size(path, document, theirs) for theirs in ("vocab_size", *SIZES)}
    if document.get("n_inner") is None:
        document["n_inner"] = 4 * sizes["n_embd"]
    activation = document.get("activation_function", "gelu_new")
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise _refusal(path, "activation_function", activation, " or ".join(ACTIVATIONS), "use a GPT-2 that has it")
    tied = document.get("tie_word_embeddings", True)
    if not isinstance(tied, bool):
        raise _refusal(path, "tie_word_embeddings", tied, "true or false", "fix it")
    return {
        **{ours: sizes[theirs] for theirs, ours in SIZES.items()},
        "mlp_dim": _size(path, document, "n_inner"),
        "activation": ACTIVATIONS[activation],
        "tie_embeddings": tied,
        "output_bias": False,
        "vocab_size": sizes["vocab_size"],
    }


def files_sha256(folder: Path) -> dict[str, str]:
    """Return the hashes of the files that the weights are read from."""
    return {name: sha256_of(folder / name) for name in (CONFIG, *weight_files(folder))}


def weight_files(folder: Path) -> list[str]:
    """Return the names of the files with the weights: one, or the index and the files that it names.

    Raises UserError if the index is damaged or names a file outside of the directory.
    """
    path = folder / INDEX
    if (folder / WEIGHTS).is_file() or not path.is_file():
        return [WEIGHTS]
    names = read_json(path, {"weight_map": {}}, "download it again", MOST_INDEX_BYTES)["weight_map"].values()
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise UserError(f"{path}: got the file {str(name)[:80]!r}, expected names of safetensors files next to it")
    return [INDEX, *sorted(set(names))]


def _size(path: Path, document: Mapping[str, Any], field: str) -> int:
    got = document.get(field)
    if not isinstance(got, int) or isinstance(got, bool) or not 0 < got < 1 << 31:
        raise _refusal(path, field, got, "a whole number above 0", "fix it or download it again")
    return got


def _check_files(folder: Path, section: Mapping[str, Any]) -> None:
    files = [folder / name for name in weight_files(folder)]
    path = files[0]
    if missing := [file for file in files if not file.is_file()]:
        path = missing[0]
        pickled = sorted(file.name for file in folder.glob("*.bin"))
        parts = sorted(file.name for file in folder.glob("model*.safetensors"))
        found = f"{pickled[0]} is a pickle, which is not read because it may run code" if pickled else "no such file"
        found = f"no such file, and no {INDEX} for {parts[0]}, ..." if parts and len(files) == 1 else found
        raise UserError(
            f"{path}: {found}; load the directory with transformers and save it with "
            "save_pretrained(directory, max_shard_size='100GB')"
        )
    if not (folder / TOKENIZER).is_file():
        raise UserError(
            f"{folder / TOKENIZER}: no such file, but the weights need their own tokenizer; write it with "
            f"AutoTokenizer.from_pretrained('{folder}').save_pretrained('{folder}')"
        )
    matrices, stored = _matrix_elements(ModelConfig(**section)), sum(file.stat().st_size for file in files)
    if matrices * LEAST_WEIGHT_BYTES > stored:
        raise UserError(
            f"{folder / CONFIG}: its sizes give at least {matrices:,} weights, which do not fit into the "
            f"{stored:,} bytes of {path}; download both again"
        )


def _matrix_elements(model: ModelConfig) -> int:
    """Return the number of weights in the matrices of a model, a head of its own left out."""
    E, F, D = model.embed_dim, model.mlp_dim, model.head_channels
    attention = (2 * model.num_heads + 2 * model.kv_heads) * D * E
    positions = 0 if model.parts.rotary else model.context_length
    return (model.vocab_size + positions) * E + model.num_layers * (attention + (3 if model.parts.gated else 2) * E * F)


def _refusal(path: Path, field: str, got: Any, expected: str, remedy: str) -> UserError:
    return UserError(f"{path}: {field}: got {str(got)[:80]!r}, expected {expected}; {remedy}")
