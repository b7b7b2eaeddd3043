"""Read the weights of a GPT-2 in a Hugging Face directory, and map their names to ours."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from hipgpt.base.errors import UserError
from hipgpt.base.files import check_regular
from hipgpt.config.huggingface import WEIGHTS
from hipgpt.config.settings import ModelConfig
from hipgpt.gpt.checkpoint import check_finite
from hipgpt.gpt.parameters import parameters

# our name -> GPT-2's; its Conv1D layers store weights as (in, out), ours are (out, in)
LINEAR = {"qkv": "attn.c_attn", "projection": "attn.c_proj", "mlp_in": "mlp.c_fc", "mlp_out": "mlp.c_proj"}
NORMS = {"attention_norm": "ln_1", "mlp_norm": "ln_2"}
PREFIX, HEAD = "transformer.", "lm_head.weight"
BUFFERS = (".attn.bias", ".attn.masked_bias")  # the causal mask, which older files contain
READABLE = ("F32", "F16")


class WeightName(NamedTuple):
    """Our name of a weight, its name in GPT-2's file, and whether it is stored transposed there."""

    ours: str
    theirs: str
    transposed: bool = False


def weight_names(num_layers: int) -> Iterator[WeightName]:
    """Yield the names of each weight of a GPT-2 whose head is its token embedding."""
    yield WeightName("token_embedding.weight", "transformer.wte.weight")
    yield WeightName("position_embedding.weight", "transformer.wpe.weight")
    for i in range(num_layers):
        for ours, theirs in LINEAR.items():
            yield WeightName(f"block{i}.{ours}.weight", f"transformer.h.{i}.{theirs}.weight", transposed=True)
            yield WeightName(f"block{i}.{ours}.bias", f"transformer.h.{i}.{theirs}.bias")
        for ours, theirs in NORMS.items():
            yield WeightName(f"block{i}.{ours}.gamma", f"transformer.h.{i}.{theirs}.weight")
            yield WeightName(f"block{i}.{ours}.beta", f"transformer.h.{i}.{theirs}.bias")
    yield WeightName("final_norm.gamma", "transformer.ln_f.weight")
    yield WeightName("final_norm.beta", "transformer.ln_f.bias")


def read_weights(folder: Path, model: ModelConfig) -> dict[str, NDArray[np.float32]]:
    """Return the weights with our names and layouts, f32.

    Raises UserError as `check_weights` does, and for a weight that is not finite.
    """
    with _opened(folder / WEIGHTS) as file:
        stored = _check_shapes(folder / WEIGHTS, file, model)
        arrays = {}
        for name, in_file in stored.items():
            array = file.get_tensor(in_file)
            check_finite(folder / WEIGHTS, {in_file: array})
            arrays[name.ours] = _array(array, name)
        return arrays


def check_weights(folder: Path, model: ModelConfig) -> None:
    """Compare the table of shapes in the file with the model. No weight is read.

    model: as hipgpt.config.huggingface.model_section describes it. Raises UserError, naming the weight, if a weight is
    missing or unknown, or has another shape or type.
    """
    with _opened(folder / WEIGHTS) as file:
        _check_shapes(folder / WEIGHTS, file, model)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        check_regular(path)
        with safe_open(path, framework="numpy") as file:
            yield file
    except (SafetensorError, FileNotFoundError) as error:
        raise UserError(f"{path}: not a whole safetensors file ({error}); download it again") from error


def _check_shapes(path: Path, file: Any, model: ModelConfig) -> dict[WeightName, str]:
    """Return the name in the file of each weight that the model has."""
    stored = {_full(name): name for name in file.keys()}  # noqa: SIM118 (not a dict)
    names = list(weight_names(model.num_layers))
    if not model.tie_embeddings:
        names.append(WeightName("output.weight", HEAD))
    _check_names(path, stored, names)
    shapes = {field.name: field.shape for field in parameters(model)}
    for name in names:
        part, expected = file.get_slice(stored[name.theirs]), shapes[name.ours]
        expected = expected[::-1] if name.transposed else expected
        dtype, shape = part.get_dtype(), tuple(part.get_shape())
        if dtype not in READABLE or shape != expected:
            raise UserError(
                f"{path}: {stored[name.theirs]}: got {dtype} {shape}, expected {' or '.join(READABLE)} "
                f"{expected} according to config.json; save the model as float32 with its own config.json"
            )
    return {name: stored[name.theirs] for name in names}


def _full(name: str) -> str:
    """Return the name of a weight as GPT2LMHeadModel saves it. GPT2Model omits the prefix."""
    return name if name.startswith(PREFIX) or name == HEAD else PREFIX + name


def _check_names(path: Path, stored: Mapping[str, str], names: list[WeightName]) -> None:
    expected = {name.theirs for name in names}
    missing = sorted(expected - stored.keys())
    unknown = sorted(name for name in stored.keys() - expected - {HEAD} if not name.endswith(BUFFERS))
    for found, what in ((missing, "is missing"), (unknown, "is not a weight of the GPT-2 that config.json describes")):
        if found:
            raise UserError(
                f"{path}: {stored.get(found[0], found[0])} {what}, {len(found)} in all; use a GPT2LMHeadModel as "
                "save_pretrained writes it"
            )


def _array(values: NDArray[Any], name: WeightName) -> NDArray[np.float32]:
    return np.ascontiguousarray(values.T if name.transposed else values, np.float32)
