"""Weights files, and the resumable state of a training run: whole or absent, and refused when it is another run's."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from hipgpt.backends.device import Device
from hipgpt.config import ModelConfig
from hipgpt.errors import UserError
from hipgpt.files import replacing, sha256_of
from hipgpt.metrics import LOG
from hipgpt.parameters import Weights, parameters
from hipgpt.tensor import Arena

OTHER_RUNS_KEPT = 2


def read_arena(device: Device, arena: Arena, prefix: str = "") -> dict[str, np.ndarray]:
    """Return an arena's fields by name."""
    return {prefix + field.name: device.read(arena[field.name]) for field in arena.fields}


def write_arena(device: Device, arena: Arena, arrays: Mapping[str, np.ndarray], prefix: str = "") -> None:
    """Set an arena's fields from arrays by name."""
    for field in arena.fields:
        device.write(arena[field.name], arrays[prefix + field.name])


def save_tensors(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file, whole or not at all."""
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    with replacing(path) as file:
        file.write(save(contiguous, dict(metadata)))


def save_checkpoint(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
    """Write a safetensors file whose metadata holds ours with the hash of all content, as one JSON text.

    One, because safetensors writes several entries in any order, and equal checkpoints shall be equal files.
    """
    document = {"sha256": _content_sha256(arrays, metadata), "content": dict(metadata)}
    save_tensors(path, arrays, {"hipgpt": json.dumps(document)})


def load_checkpoint(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return arrays and metadata that `save_checkpoint` wrote. Raises UserError if the file is absent or damaged."""
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            document = json.loads((file.metadata() or {}).get("hipgpt", "{}"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; run the train stage") from error
    except (SafetensorError, json.JSONDecodeError, RecursionError) as error:
        raise UserError(
            f"{path}: not a whole safetensors file ({error}); delete it and run the train stage again"
        ) from error
    if not isinstance(document, dict) or not isinstance(document.get("content"), dict):
        raise UserError(f"{path}: no model in its metadata, expected a checkpoint of the train stage")
    if document.get("sha256") != _content_sha256(arrays, document["content"]):
        raise UserError(f"{path}: changed since it was written; delete it and run the train stage again")
    return arrays, document["content"]


def _content_sha256(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(metadata).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def load_model(path: Path, tokenizer_sha256: str) -> tuple[ModelConfig, dict[str, np.ndarray]]:
    """Return the model and the weights by name of a checkpoint that training wrote.

    Raises UserError if the file is no such checkpoint, or was trained with another tokenizer.
    """
    arrays, metadata = load_checkpoint(path)
    if "model" not in metadata:
        raise UserError(f"{path}: no model in its metadata, expected a checkpoint of the train stage")
    if metadata.get("tokenizer_sha256") != tokenizer_sha256:
        raise UserError(
            f"{path}: trained with the tokenizer of sha256 {metadata.get('tokenizer_sha256')}, got the one of "
            f"{tokenizer_sha256}; run the train stage again"
        )
    model = _model_of(path, metadata["model"], len(arrays))
    for field in parameters(model):
        got = arrays.get(field.name)
        if got is None or got.shape != field.shape or got.dtype != field.dtype.numpy:
            found = "nothing" if got is None else f"{got.dtype} {got.shape}"
            raise UserError(f"{path}: {field.name}: got {found}, expected {field.dtype.numpy} {field.shape}")
    return model, arrays


def _model_of(path: Path, stated: Any, tensors: int) -> ModelConfig:
    """Return the model of a checkpoint's metadata, once it is sure that its table of parameters is no longer than the
    file's."""
    kinds = {field.name: field.type for field in dataclasses.fields(ModelConfig)}
    whole = isinstance(stated, dict) and stated.keys() == kinds.keys()
    if not whole or any(type(stated[key]) is not kind for key, kind in kinds.items()):
        raise UserError(f"{path}: its metadata describe no model; delete it and run the train stage again")
    sizes = [value for value in stated.values() if type(value) is int]
    if min(sizes) < 1 or stated["num_layers"] > tensors:
        raise UserError(f"{path}: its metadata describe a model of other sizes than its {tensors} tensors; delete it")
    return ModelConfig(**stated)


def load_weights(path: Path, device: Device, tokenizer_sha256: str) -> tuple[ModelConfig, Weights]:
    """Return the model and its weights on the device. Raises UserError as `load_model` does."""
    model, arrays = load_model(path, tokenizer_sha256)
    arena = Arena(device, "weights", parameters(model))
    write_arena(device, arena, arrays)
    return model, Weights(arena, model)


class StateFolder:
    """`keep_last` states of one run, one folder each: state.safetensors and copies of the files that grow with it.

    fingerprint: what decides the run (config, data, code, device). Its hash names the folder below `root`, so a state
    of another fingerprint is never loaded; the latest OTHER_RUNS_KEPT of them stay beside it, to be gone on with.
    """

    def __init__(self, root: Path, fingerprint: Mapping[str, Any], keep_last: int, live_files: list[Path]):
        self.root, self.fingerprint, self.keep_last = root, dict(fingerprint), keep_last
        self.live_files = live_files
        digest = hashlib.sha256(json.dumps(self.fingerprint, sort_keys=True).encode()).hexdigest()
        self.folder = root / digest[:12]

    @property
    def best(self) -> Path:
        """Where the weights with the lowest validation loss so far are kept."""
        return self.folder / "best.safetensors"

    def steps(self) -> list[int]:
        """Return the saved steps, oldest first; a state of which a file was deleted is none."""
        names = ["state.safetensors", *(file.name for file in self.live_files)]
        whole = [path for path in self.folder.glob("step_*[0-9]") if all((path / name).exists() for name in names)]
        return sorted(int(path.name.removeprefix("step_")) for path in whole)

    def path(self, step: int) -> Path:
        return self.folder / f"step_{step:08d}"

    def save(self, step: int, arrays: Mapping[str, np.ndarray], progress: Mapping[str, Any]) -> Path:
        """Save a state and drop the oldest ones beyond keep_last; return the new state's folder."""
        part = self.folder / "saving"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for file in self.live_files:
            with replacing(part / file.name) as copy:
                copy.write(file.read_bytes())
        copies = {file.name: sha256_of(part / file.name) for file in self.live_files}
        metadata = {"fingerprint": self.fingerprint, "progress": dict(progress), "files_sha256": copies}
        save_checkpoint(part / "state.safetensors", arrays, metadata)
        target = self.path(step)
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)
        for old in self.steps()[: -self.keep_last]:
            shutil.rmtree(self.path(old))
        return target

    def load_last(self) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        """Return arrays and progress of the last undamaged state and restore the live files; None if there is none."""
        for step in reversed(self.steps()):
            folder = self.path(step)
            try:
                arrays, metadata = load_checkpoint(folder / "state.safetensors")
            except UserError as error:
                LOG.warning("%s; going back to the state before it", error)
                continue
            if metadata["files_sha256"].keys() != {file.name for file in self.live_files}:
                LOG.warning("%s: has other files than a state; going back to the state before it", folder)
                continue
            changed = [name for name, sha256 in metadata["files_sha256"].items() if sha256_of(folder / name) != sha256]
            if changed:
                LOG.warning("%s: changed since it was saved; going back to the state before it", folder / changed[0])
                continue
            for file in self.live_files:
                with replacing(file) as copy:
                    copy.write((folder / file.name).read_bytes())
            return arrays, metadata["progress"]
        return None

    def refuse_others(self) -> str | None:
        """Say what sets the latest state of another fingerprint apart; delete those beyond OTHER_RUNS_KEPT."""
        others = [path for path in self.root.glob("*/step_*[0-9]/state.safetensors") if path.parents[1] != self.folder]
        others.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
        folders = list(dict.fromkeys(path.parents[1] for path in others))
        for folder in folders[OTHER_RUNS_KEPT:]:
            shutil.rmtree(folder)
        if not others:
            return None
        _, metadata = load_checkpoint(others[0])
        what = "; ".join(differences(metadata["fingerprint"], self.fingerprint))
        return f"{others[0].parent}: this state belongs to another run ({what}) and stays there"


def differences(before: Any, after: Any, key: str = "") -> list[str]:
    """Return "key before -> after" for each leaf that differs between two nested maps."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        names = [*before, *(name for name in after if name not in before)]
        return [
            line
            for name in names
            for line in differences(before.get(name), after.get(name), f"{key}.{name}".lstrip("."))
        ]
    return [] if before == after else [f"{key} {before} -> {after}"]
