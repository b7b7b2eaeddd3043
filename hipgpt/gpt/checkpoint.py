"""Files of weights: whole or absent, and refused if they are damaged or belong to another tokenizer."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from hipgpt.base.errors import UserError
from hipgpt.base.files import check_regular, replacing
from hipgpt.compute.device import Device
from hipgpt.compute.tensor import Arena
from hipgpt.config.settings import ModelConfig
from hipgpt.config.stated import model_from
from hipgpt.gpt.parameters import ParameterTensors, parameters

READABLE = ("F32", "F64", "F16", "BOOL", "I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64")  # dtypes of NumPy


def read_arena(device: Device, arena: Arena) -> dict[str, NDArray[Any]]:
    """Return host copies of an arena's fields by name."""
    return {field.name: device.read(arena[field.name]) for field in arena.fields}


def write_arena(device: Device, arena: Arena, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Copy host arrays to an arena's fields, by name."""
    for field in arena.fields:
        device.write(arena[field.name], arrays[field.name])


def save_tensors(path: Path, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file, whole or not at all."""
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    with replacing(path) as file:
        file.write(save(contiguous, dict(metadata)))


def save_checkpoint(path: Path, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]) -> None:
    """Write a safetensors file whose metadata has one entry: a JSON text of `metadata` and of the hash of all content.

    It is one entry because safetensors writes several entries in any order, and equal checkpoints must be equal files.
    """
    document = {"sha256": _content_sha256(arrays, metadata), "content": dict(metadata)}
    save_tensors(path, arrays, {"hipgpt": json.dumps(document)})


def load_checkpoint(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return arrays and metadata that `save_checkpoint` wrote. Raises UserError if the file is absent or damaged."""
    try:
        check_regular(path)
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 (not a dict)
                if (dtype := file.get_slice(name).get_dtype()) not in READABLE:
                    raise UserError(
                        f"{path}: {name}: got {dtype}, expected one of {', '.join(READABLE)}; delete the file and run "
                        "the train stage again"
                    )
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            document = json.loads((file.metadata() or {}).get("hipgpt", "{}"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; run the train stage") from error
    except (SafetensorError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path}: not a whole safetensors file ({error}); delete it and run the train stage again"
        ) from error
    if not isinstance(document, dict) or not isinstance(document.get("content"), dict):
        raise UserError(f"{path}: its metadata hold no model, expected a checkpoint of the train stage")
    if document.get("sha256") != _content_sha256(arrays, document["content"]):
        raise UserError(f"{path}: changed since it was written; delete it and run the train stage again")
    return arrays, document["content"]


def _content_sha256(arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(metadata).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def load_model(path: Path, tokenizer_sha256: str) -> tuple[ModelConfig, dict[str, NDArray[np.float32]]]:
    """Return the model, and the weights by name, of a checkpoint that training wrote.

    Raises UserError if the file is not such a checkpoint, or was trained with another tokenizer.
    """
    arrays, metadata = load_checkpoint(path)
    if "model" not in metadata:
        raise UserError(f"{path}: its metadata hold no model, expected a checkpoint of the train stage")
    if metadata.get("tokenizer_sha256") != tokenizer_sha256:
        raise UserError(
            f"{path}: trained with the tokenizer of sha256 {metadata.get('tokenizer_sha256')}, but the one in use has "
            f"{tokenizer_sha256}; run the train stage again"
        )
    model = _model_of(path, metadata["model"], len(arrays))
    for field in parameters(model):
        got = arrays.get(field.name)
        if got is None or got.shape != field.shape or got.dtype != field.dtype.numpy:
            found = "nothing" if got is None else f"{got.dtype} {got.shape}"
            raise UserError(f"{path}: {field.name}: got {found}, expected {field.dtype.numpy} {field.shape}")
    check_finite(path, arrays)
    return model, arrays


def check_finite(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Raise UserError, naming the tensor, if a weight is NaN or infinite: every loss and text would be wrong."""
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            position = int(np.argmin(np.isfinite(array).reshape(-1)))
            raise UserError(
                f"{path}: {name}: element {position:,}: got {array.reshape(-1)[position]}, expected finite weights; "
                "take them from a run whose loss stayed finite"
            )


def _model_of(path: Path, stated: Any, tensors: int) -> ModelConfig:
    """Return the model that a checkpoint's metadata describe.

    It is checked first that the model has at most as many layers as the file has tensors, because a table of parameters
    is then built for it.
    """
    try:
        model = model_from(stated)
    except ValueError as error:
        raise UserError(f"{path}: its metadata: {error}; delete it and run the train stage again") from error
    if model.num_layers > tensors:
        raise UserError(f"{path}: its metadata do not fit its {tensors} tensors; delete it")
    return model


def load_weights(path: Path, device: Device, tokenizer_sha256: str) -> tuple[ModelConfig, ParameterTensors]:
    """Return the model and its weights on the device. Raises UserError as `load_model` does."""
    model, arrays = load_model(path, tokenizer_sha256)
    arena = Arena(device, "weights", parameters(model))
    write_arena(device, arena, arrays)
    return model, ParameterTensors(arena, model)
