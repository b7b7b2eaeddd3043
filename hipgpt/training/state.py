"""The resumable state of a training run. It is whole or absent, and a state of another run is not loaded."""

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hipgpt.base.errors import MOST_CHARACTERS, UserError
from hipgpt.base.files import make_folder, replacing, sha256_of, sync
from hipgpt.base.log import LOG
from hipgpt.base.nested import differences
from hipgpt.base.terminal import one_line
from hipgpt.gpt.checkpoint import load_checkpoint, save_checkpoint

OTHER_RUNS_KEPT = 2
STEP = re.compile(r"step_[0-9]{8,18}")
HASH = re.compile(r"\b([0-9a-f]{8})[0-9a-f]{56}\b")  # a message shows the beginning of one
PROGRESS = {"step": (int,), "best_loss": (float, int)}


class StateFolder:
    """The last `keep_last` states of one run, each in a folder: state.safetensors and copies of the growing files.

    fingerprint: the inputs that determine the run (config, data, code, device). Its hash names the folder below `root`,
    so a state of another fingerprint is never loaded. The folders of the OTHER_RUNS_KEPT latest other fingerprints are
    kept too, so that going back to earlier settings resumes that run. live_files: the files that grow with the run.
    """

    def __init__(self, root: Path, fingerprint: Mapping[str, Any], keep_last: int, live_files: list[Path]):
        self.root, self.fingerprint, self.keep_last = root, dict(fingerprint), keep_last
        self.live_files = live_files
        digest = hashlib.sha256(json.dumps(self.fingerprint, sort_keys=True).encode()).hexdigest()
        self.folder = root / digest[:12]

    @property
    def best(self) -> Path:
        """The path of the weights with the lowest validation loss so far."""
        return self.folder / "best.safetensors"

    def steps(self) -> list[int]:
        """Return the saved steps, oldest first. A state with a missing file does not count."""
        names = ["state.safetensors", *(file.name for file in self.live_files)]
        found = [path for path in self.folder.glob("step_*") if STEP.fullmatch(path.name)]
        whole = [path for path in found if all((path / name).exists() for name in names)]
        return sorted(int(path.name.removeprefix("step_")) for path in whole)

    def path(self, step: int) -> Path:
        return self.folder / f"step_{step:08d}"

    def save(self, step: int, arrays: Mapping[str, NDArray[Any]], progress: Mapping[str, Any]) -> Path:
        """Save a state, delete the oldest states beyond keep_last, and return the folder of the new one."""
        part = self.folder / "saving"
        shutil.rmtree(part, ignore_errors=True)
        make_folder(part)
        for file in self.live_files:
            with replacing(part / file.name) as copy:
                copy.write(file.read_bytes())
        copies = {file.name: sha256_of(part / file.name) for file in self.live_files}
        metadata = {"fingerprint": self.fingerprint, "progress": dict(progress), "files_sha256": copies}
        save_checkpoint(part / "state.safetensors", arrays, metadata)
        target = self.path(step)
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)
        sync(self.folder)  # before older states are deleted
        for old in self.steps()[: -self.keep_last]:
            shutil.rmtree(self.path(old))
        return target

    def load_last(
        self, expected: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]] | None:
        """Return arrays and progress of the last undamaged state, and restore the live files. None without a state.

        expected: shape and dtype of each array; a state with others counts as damaged.
        """
        for step in reversed(self.steps()):
            folder = self.path(step)
            try:
                arrays, metadata = load_checkpoint(folder / "state.safetensors")
            except UserError as error:
                LOG.warning("%s; going back to the state before it", error)
                continue
            if wrong := _wrong(arrays, metadata, expected):
                LOG.warning("%s: %s; going back to the state before it", folder, wrong)
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
        """Return a message with the differences of the latest state of another run; None if there is no such state.

        Deletes the states of other runs beyond the latest OTHER_RUNS_KEPT runs.
        """
        others = [path for path in self.root.glob("*/step_*/state.safetensors") if path.parents[1] != self.folder]
        others.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
        folders = list(dict.fromkeys(path.parents[1] for path in others))
        for folder in folders[OTHER_RUNS_KEPT:]:
            shutil.rmtree(folder)
        if not others:
            return None
        try:
            _, metadata = load_checkpoint(others[0])
        except UserError as error:
            return f"{others[0].parent}: this state belongs to another run and is damaged ({error}); it stays there"
        if not isinstance(metadata.get("fingerprint"), dict):
            return f"{others[0].parent}: this state does not say which run it belongs to, and stays there"
        what = HASH.sub(r"\1...", "; ".join(differences(metadata["fingerprint"], self.fingerprint)))
        return one_line(
            f"{others[0].parent}: this state belongs to another run ({what}) and stays there", MOST_CHARACTERS
        )


def _wrong(
    arrays: Mapping[str, NDArray[Any]],
    metadata: Mapping[str, Any],
    expected: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]] | None,
) -> str | None:
    """Say what keeps a state whose hash is right from being resumed, None if nothing does."""
    files, progress = metadata.get("files_sha256"), metadata.get("progress")
    if not isinstance(files, dict) or not isinstance(progress, dict):
        return "its metadata are not those of a state"
    for name, (shape, dtype) in (expected or {}).items():
        got = arrays.get(name)
        if got is None or got.shape != shape or got.dtype != dtype:
            found = "nothing" if got is None else f"{got.dtype} {got.shape}"
            return f"{name}: got {found}, expected {dtype} {shape}"
    if expected is not None and any(type(progress.get(name)) not in kinds for name, kinds in PROGRESS.items()):
        return f"its progress is {progress}, expected step and best_loss"
    return None
