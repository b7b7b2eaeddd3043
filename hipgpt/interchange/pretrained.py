"""The weights of a GPT-2 in a Hugging Face directory: what they are called there, and reading them."""

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

# ours -> GPT-2's; its Conv1D layers keep weights as (in, out), ours are (out, in)
LINEAR = {"qkv": "attn.c_attn", "projection": "attn.c_proj", "mlp_in": "mlp.c_fc", "mlp_out": "mlp.c_proj"}
NORMS = {"attention_norm": "ln_1", "mlp_norm": "ln_2"}
PREFIX, HEAD = "transformer.", "lm_head.weight"
BUFFERS = (".attn.bias", ".attn.masked_bias")  # the causal mask, which older files hold
READABLE = ("F32", "F16")


class Place(NamedTuple):
    """A weight of ours, what GPT-2's file calls it, and whether it lies there transposed."""

    ours: str
    theirs: str
    transposed: bool = False


def places(num_layers: int) -> Iterator[Place]:
    """Yield the place of each weight of a tied GPT-2."""
    yield Place("token_embedding.weight", "transformer.wte.weight")
    yield Place("position_embedding.weight", "transformer.wpe.weight")
    for i in range(num_layers):
        for ours, theirs in LINEAR.items():
            yield Place(f"block{i}.{ours}.weight", f"transformer.h.{i}.{theirs}.weight", transposed=True)
            yield Place(f"block{i}.{ours}.bias", f"transformer.h.{i}.{theirs}.bias")
        for ours, theirs in NORMS.items():
            yield Place(f"block{i}.{ours}.gamma", f"transformer.h.{i}.{theirs}.weight")
            yield Place(f"block{i}.{ours}.beta", f"transformer.h.{i}.{theirs}.bias")
    yield Place("final_norm.gamma", "transformer.ln_f.weight")
    yield Place("final_norm.beta", "transformer.ln_f.bias")


def read_weights(folder: Path, model: ModelConfig) -> dict[str, NDArray[np.float32]]:
    """Return the weights by our names and in our layouts, f32. Raises UserError as `check_weights` does,
    and for a weight that is not finite."""
    with _opened(folder / WEIGHTS) as file:
        stored = _check_shapes(folder / WEIGHTS, file, model)
        arrays = {}
        for place, name in stored.items():
            array = file.get_tensor(name)
            check_finite(folder / WEIGHTS, {name: array})
            arrays[place.ours] = _array(array, place)
        return arrays


def check_weights(folder: Path, model: ModelConfig) -> None:
    """Compare the file's table of shapes with the model; no weight is read.

    model: as hipgpt.config.huggingface.model_section says. Raises UserError, naming the weight, if one is missing, too
    many, or of another shape or type.
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


def _check_shapes(path: Path, file: Any, model: ModelConfig) -> dict[Place, str]:
    """Return the names in the file of the weights that the model has."""
    names = {_full(name): name for name in file.keys()}  # noqa: SIM118 (not a dict)
    expected_places = list(places(model.num_layers))
    if not model.tie_embeddings:
        expected_places.append(Place("output.weight", HEAD))
    _check_names(path, names, expected_places)
    shapes = {field.name: field.shape for field in parameters(model)}
    for place in expected_places:
        part, expected = file.get_slice(names[place.theirs]), shapes[place.ours]
        expected = expected[::-1] if place.transposed else expected
        dtype, shape = part.get_dtype(), tuple(part.get_shape())
        if dtype not in READABLE or shape != expected:
            raise UserError(
                f"{path}: {names[place.theirs]}: got {dtype} {shape}, expected {' or '.join(READABLE)} "
                f"{expected}, as config.json says; save the model as float32 with its own config.json"
            )
    return {place: names[place.theirs] for place in expected_places}


def _full(name: str) -> str:
    """Return a weight's name as GPT2LMHeadModel saves it; GPT2Model leaves the prefix out."""
    return name if name.startswith(PREFIX) or name == HEAD else PREFIX + name


def _check_names(path: Path, names: Mapping[str, str], expected_places: list[Place]) -> None:
    expected = {place.theirs for place in expected_places}
    missing = sorted(expected - names.keys())
    unknown = sorted(name for name in names.keys() - expected - {HEAD} if not name.endswith(BUFFERS))
    for found, what in ((missing, "is missing"), (unknown, "is no weight of the GPT-2 that config.json describes")):
        if found:
            raise UserError(
                f"{path}: {names.get(found[0], found[0])} {what}, {len(found)} in all; use a GPT2LMHeadModel as "
                "save_pretrained writes it"
            )


def _array(stored: NDArray[Any], place: Place) -> NDArray[np.float32]:
    return np.ascontiguousarray(stored.T if place.transposed else stored, np.float32)
