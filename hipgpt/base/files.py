"""Files that are either whole or absent, their hashes, and folders that one process locks for itself."""

import contextlib
import errno
import fcntl
import glob
import hashlib
import os
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from hipgpt.base.errors import UserError

BLOCK = 1 << 20  # bytes read or written at once
KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
NOT_ON_A_DISK = ("proc", "sys")  # whose files may block or never end
LOCK_TRIES, SECONDS_BETWEEN_TRIES = 3, 0.05  # because `is_locked` holds a lock for a moment


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file, readable and writable, that replaces `path` if the block ends without an error.

    Its bytes are on the disk (fsync) before the rename, so after a crash `path` is the old file or the whole new one.
    The rename is on the disk when the block ends, so after a crash no later file is there without an earlier one.
    Raises UserError if another process is writing the same file.
    """
    make_folder(path.parent)
    temporary = path.with_name(path.name + ".partial")
    try:
        with _open_alone(temporary, path) as file, _removed_at_the_end(temporary):
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)
            sync(path.parent)
    except OSError as error:
        error.filename = error.filename or str(path)  # a failed write names no file
        raise


def make_folder(folder: Path) -> None:
    """Create a folder and those above it that are missing, and wait until their entries are on the disk."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


def check_folder(path: Path) -> None:
    """Raise UserError if path is something that no folder can be made in place of."""
    if path.is_dir() or not os.path.lexists(path):
        return
    if path.is_symlink() and not path.exists():
        got = f"a link to {os.readlink(path)}, which is missing"
        raise UserError(f"{path}: got {got}, expected a folder; make it or remove the link")
    raise UserError(f"{path}: got a file, expected a folder; move it away")


def sync(path: Path) -> None:
    """Wait until the bytes of a file, or the entries of a folder (new files, renames, removals), are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # the file system cannot do it for folders
            raise
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Delete a file, or a folder with all that is in it, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def append(path: Path, text: str) -> None:
    """Add text to a file. Raises FileNotFoundError if it was deleted, because a new file would lack its start."""
    try:
        with open(os.open(path, os.O_WRONLY | os.O_APPEND), "a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


@contextlib.contextmanager
def alone_in(folder: Path, doing: str) -> Iterator[None]:
    """Keep other processes that ask for the same folder out of it until the block, or this process, ends.

    doing: the activity that their error message names. Raises UserError if another process is in the folder.
    """
    make_folder(folder)
    handle = os.open(folder, os.O_RDONLY)
    try:
        _lock(handle, f"{folder}: {doing}")
        yield
    finally:
        os.close(handle)


def is_locked(folder: Path) -> bool:
    """Return whether a process is in a folder that it locked by `alone_in`."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def check_regular(path: Path) -> None:
    """Raise UserError unless path is a file on a disk, because reading a pipe, a device or /proc may never end.

    Raises OSError if there is no such file.
    """
    mode = path.stat().st_mode
    of_the_system = path.resolve().parts[1:2] in [(folder,) for folder in NOT_ON_A_DISK]
    if not stat.S_ISREG(mode) or of_the_system:
        got = "a file of the system" if of_the_system else KINDS.get(stat.S_IFMT(mode), "a device")
        raise UserError(
            f"{path}: got {got}, expected a file on a disk; name another one, or copy its bytes into a file"
        )


def matching_files(patterns: str | Sequence[str]) -> list[Path]:
    """Return the files that a path or glob names, in the order of their names; of several, one after the other.

    A folder stands for all files below it, except hidden ones, and ~ for the home. Pipes and devices are left out.
    Raises UserError for a file of /proc.
    """
    found: dict[Path, None] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        expanded = os.path.expanduser(pattern)
        if os.path.isdir(expanded):
            expanded = os.path.join(glob.escape(expanded), "**")
        names = glob.glob(expanded, recursive=True)
        found |= dict.fromkeys(path for path in map(Path, sorted(names)) if path.is_file())
    for path in found:
        check_regular(path)
    return [*found]


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex. The file is read block by block."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def _removed_at_the_end(temporary: Path) -> Iterator[None]:
    try:
        yield
    finally:
        temporary.unlink(missing_ok=True)


def _open_alone(temporary: Path, path: Path) -> BinaryIO:
    """Open an empty temporary file and lock it. The file that a killed process left is emptied and reused."""
    while True:
        file = open(os.open(temporary, os.O_RDWR | os.O_CREAT, 0o666), "w+b")  # noqa: SIM115 (returned open)
        try:
            _lock(file.fileno(), f"{path}: another process is writing it")
            if temporary.exists() and os.path.samestat(os.fstat(file.fileno()), temporary.stat()):
                file.truncate(0)
                return file
        except BaseException:
            file.close()
            raise
        file.close()  # the other process renamed it just before we had the lock


def _lock(handle: int, busy: str) -> None:
    """Lock an open file or folder. The system unlocks it when the handle is closed or the process is killed."""
    for _ in range(LOCK_TRIES):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(SECONDS_BETWEEN_TRIES)
    raise UserError(f"{busy}; wait for it to end or stop it, then run the same command again")
