"""Finished runs that a changed recipe replaces. They are kept in results/history, and can be restored or pruned.

The folder results/history/<run>/<id>/ holds the files of a kept run and Snakemake's records of them. Because of these
records, a restored run is not trained again if the config has its old settings. The id is the beginning of a hash of
its run.json and its last checkpoint.
"""

import base64
import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hipgpt.base.errors import UserError
from hipgpt.base.files import make_folder, sha256_of, sync

HISTORY, FILES, RECORDS = "history", "files", "records"
NEVER_KEPT = {"state", "exports"}  # training keeps states by itself; exports can be written again
ID_DIGITS = 8
PROOF = ("run.json", "checkpoints/last.safetensors")  # a run that has these files is finished


@dataclass(frozen=True)
class KeptRun:
    """run: its name; id: the argument of `restore`; folder: holds its files and records."""

    run: str
    id: str
    folder: Path

    @property
    def own_bytes(self) -> int:
        """The size of its files, without weights that it shares with the present run."""
        return sum(stat.st_size for stat in map(Path.stat, _files(self.folder)) if stat.st_nlink == 1)


def keep(results: Path, run: str) -> KeptRun | None:
    """Keep the files of a finished run, unless they are kept already, and return it. None if it is unfinished."""
    source, kept = results / "runs" / run, present_run(results, run)
    if kept and not kept.folder.exists():
        partial = kept.folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        for file in run_files(source):
            _copy(file, partial / FILES / file.relative_to(source))
            if (record := _record_of(file)).is_file():
                _copy(record, partial / RECORDS / record)
        os.rename(partial, kept.folder)
        sync(kept.folder.parent)  # before Snakemake deletes the files of the run
    return kept


def present_run(results: Path, run: str) -> KeptRun | None:
    """Return the kept run that `keep` would make, or made, of the present run. None if it is unfinished."""
    source = results / "runs" / run
    if not all((source / name).is_file() for name in PROOF):
        return None
    digest = hashlib.sha256("".join(sha256_of(source / name) for name in PROOF).encode()).hexdigest()
    return KeptRun(run, digest[:ID_DIGITS], results / HISTORY / run / digest[:ID_DIGITS])


def kept_runs(results: Path) -> list[KeptRun]:
    """Return all kept runs, sorted by name. Those of one name are sorted by date, the latest first."""
    folders = sorted((results / HISTORY).glob("*/*"), key=lambda path: (path.parent.name, -path.stat().st_mtime_ns))
    return [KeptRun(path.parent.name, path.name, path) for path in folders if path.suffix != ".partial"]


def other_runs(results: Path, run: str, id: str | None = None) -> list[KeptRun]:
    """Return the kept runs of a name that can replace the present one, or the one with this id, the latest first.

    Raises UserError if there is none.
    """
    known, present = kept_runs(results), present_run(results, run)
    found = [kept for kept in known if kept.run == run and (kept.id == id if id else kept != present)]
    if not found:
        names = ", ".join(f"{kept.run} {kept.id}" for kept in known) or "none"
        now = f"; the present run is {present.id}" if present else ""
        raise UserError(f"restore: no other kept run {run}{f' {id}' if id else ''}; kept are: {names}{now}")
    return found


def restore(results: Path, found: KeptRun) -> tuple[list[Path], KeptRun | None]:
    """Replace the files of a run by those of a kept run. The present run is kept before, if it is finished.

    Returns the new files, and the run that they replaced if it is another one.
    """
    run = found.run
    present = keep(results, run)
    target = results / "runs" / run
    for file in run_files(target):
        file.unlink()
    restored = []
    for file in _files(found.folder / FILES):
        restored.append(target / file.relative_to(found.folder / FILES))
        _copy(file, restored[-1])
    for record in _files(found.folder / RECORDS):
        _copy(record, record.relative_to(found.folder / RECORDS))
    return restored, present if present != found else None


def delete(kept: KeptRun) -> None:
    """Delete the files of a kept run."""
    shutil.rmtree(kept.folder)


def run_files(folder: Path) -> list[Path]:
    """Return the files in the folder of a run that `keep` stores."""
    return [file for file in _files(folder) if not NEVER_KEPT & set(file.relative_to(folder).parts)]


def _files(folder: Path) -> Iterable[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _record_of(file: Path) -> Path:
    """Return the path of the file in which Snakemake 9 records how an output was made."""
    return Path(".snakemake", "metadata", base64.urlsafe_b64encode(str(file).encode()).decode())


def _copy(source: Path, target: Path) -> None:
    """Copy a file with its dates. Weights get a hard link instead, because their files are large and never edited."""
    make_folder(target.parent)
    target.unlink(missing_ok=True)
    if source.suffix == ".safetensors":
        with contextlib.suppress(OSError):  # a file system without hard links
            os.link(source, target)
    if not target.exists():
        shutil.copy2(source, target)
        sync(target)
    sync(target.parent)
