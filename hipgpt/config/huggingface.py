"""The config.json of a GPT-2 in a Hugging Face directory, read as this project's `model` section."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hipgpt.base.errors import UserError
from hipgpt.base.files import sha256_of
from hipgpt.base.json_files import read_json
from hipgpt.config.settings import NORM_EPSILON

ACTIVATIONS = {"gelu_new": "gelu", "gelu_pytorch_tanh": "gelu", "relu": "relu"}  # theirs -> ours
CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
SIZES = {"n_embd": "embed_dim", "n_layer": "num_layers", "n_head": "num_heads", "n_positions": "context_length"}
# Fields that change the arithmetic, with the one value that our kernels support. An absent field has that value.
FIXED = {
    "model_type": "gpt2",
    "layer_norm_epsilon": NORM_EPSILON,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}
MOST_CONFIG_BYTES = 1 << 20
LEAST_WEIGHT_BYTES = 2  # float16


def model_section(folder: Path) -> dict[str, Any]:
    """Return the `model` section, with vocab_size, of the config.json in a directory.

    Raises UserError, naming file and field, if the directory does not hold a GPT-2 that our kernels support, or if the
    sizes are larger than the file of weights can hold. This is checked before anything is allocated.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise UserError(
            f"{path}: no such file; model.from must be a directory with {CONFIG}, {WEIGHTS} and {TOKENIZER}, "
            "written by save_pretrained of Hugging Face's transformers"
        )
    document = read_json(path, {}, "download it again", MOST_CONFIG_BYTES)
    for field, expected in FIXED.items():
        got = document.get(field, expected if field != "model_type" else None)
        if got != expected:
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
    section = {
        **{ours: sizes[theirs] for theirs, ours in SIZES.items()},
        "mlp_dim": _size(path, document, "n_inner"),
        "activation": ACTIVATIONS[activation],
        "tie_embeddings": tied,
        "output_bias": False,
        "vocab_size": sizes["vocab_size"],
    }
    _check_files(folder, section)
    return section


def files_sha256(folder: Path) -> dict[str, str]:
    """Return the hashes of the files that the weights are read from."""
    return {name: sha256_of(folder / name) for name in (CONFIG, WEIGHTS)}


def _size(path: Path, document: Mapping[str, Any], field: str) -> int:
    got = document.get(field)
    if not isinstance(got, int) or isinstance(got, bool) or not 0 < got < 1 << 31:
        raise _refusal(path, field, got, "a whole number above 0", "fix it or download it again")
    return got


def _check_files(folder: Path, section: Mapping[str, Any]) -> None:
    path = folder / WEIGHTS
    if not path.is_file():
        pickled = sorted(file.name for file in folder.glob("*.bin"))
        parts = sorted(file.name for file in folder.glob("model*.safetensors*"))
        found = f"{pickled[0]} is a pickle, which is not read because it may run code" if pickled else "no such file"
        found = f"the weights are in several files ({parts[0]}, ...)" if parts else found
        raise UserError(
            f"{path}: {found}; load the directory with transformers and save it with "
            "save_pretrained(directory, max_shard_size='100GB')"
        )
    if not (folder / TOKENIZER).is_file():
        raise UserError(
            f"{folder / TOKENIZER}: no such file, but the weights need their own tokenizer; write it with "
            f"AutoTokenizer.from_pretrained('{folder}').save_pretrained('{folder}')"
        )
    E, F, L = section["embed_dim"], section["mlp_dim"], section["num_layers"]
    matrices = (section["vocab_size"] + section["context_length"]) * E + L * (4 * E * E + 2 * E * F)
    if matrices * LEAST_WEIGHT_BYTES > path.stat().st_size:
        raise UserError(
            f"{folder / CONFIG}: its sizes give at least {matrices:,} weights, which do not fit into the "
            f"{path.stat().st_size:,} bytes of {path}; download both again"
        )


def _refusal(path: Path, field: str, got: Any, expected: str, remedy: str) -> UserError:
    return UserError(f"{path}: {field}: got {str(got)[:80]!r}, expected {expected}; {remedy}")
