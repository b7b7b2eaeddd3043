"""The cache of compiled kernels. An entry is checked before it is used, and compiled again if it is damaged.

The SHA-256 of an object's bytes is stored in a file next to it. An object without that file, or with another hash,
counts as absent: a file that was cut off or changed is compiled again instead of being loaded.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from hipgpt.base.errors import UserError
from hipgpt.base.files import sha256_of, sync

WORKING = ".part"  # suffix of the folder that an object is made in


def cache_folder() -> Path:
    """Return the folder of compiled kernels: $XDG_CACHE_HOME/hipgpt, by default ~/.cache/hipgpt."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hipgpt"


def cached(name: str, make: Callable[[Path], None]) -> Path:
    """Return the path of the object `name`. If the cache does not hold it undamaged, make(path) writes it first.

    Raises UserError if the cache cannot be written, or if make writes nothing.
    """
    path = cache_folder() / name
    if not is_cached(name):
        with _working_folder(path.parent) as folder:
            made = folder / name
            make(made)
            if not made.is_file() or made.stat().st_size == 0:
                raise UserError(f"{path}: the compiler ended without an error and wrote nothing; check CXX")
            _hash_file(made).write_text(sha256_of(made), encoding="ascii")
            for file in (made, _hash_file(made)):
                file.chmod(0o755)  # a cache may be shared
                sync(file)  # a rename after it never shows half a file
            # Concurrent compilations may write different bytes. A reader between the two renames compiles again.
            os.replace(made, path)
            os.replace(_hash_file(made), _hash_file(path))
    return path


def is_cached(name: str) -> bool:
    """Return whether the cache holds the object `name` undamaged."""
    path = cache_folder() / name
    try:
        return _hash_file(path).read_text(encoding="ascii", errors="replace") == sha256_of(path)
    except OSError:
        return False


def _hash_file(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


@contextlib.contextmanager
def _working_folder(cache: Path) -> Iterator[Path]:
    """Yield a folder of the cache that this process has locked. Folders of killed compilations are removed first."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _locked(cache):  # or another process could take the new folder for a leftover before it is locked
            _remove_leftovers(cache)
            folder = Path(tempfile.mkdtemp(dir=cache, suffix=WORKING))
            handle = os.open(folder, os.O_RDONLY)
            fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError as error:
        raise UserError(f"{cache}: cannot keep compiled kernels here ({error.strerror}); set XDG_CACHE_HOME") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


@contextlib.contextmanager
def _locked(path: Path, flags: int = fcntl.LOCK_EX) -> Iterator[None]:
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, flags)
        yield
    finally:
        os.close(handle)


def _remove_leftovers(cache: Path) -> None:
    for path in cache.glob(f"*{WORKING}"):
        with (
            contextlib.suppress(OSError),
            _locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB),
        ):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
