"""Seals: results/SHA256SUMS holds the hash of every finished file, so that a damaged file is found before it is used.

When the workflow starts, it checks the hashes, because Snakemake would not notice a damaged file. When it ends, it
seals the finished files, which means that it writes their hashes. While it runs, there is a marker. A killed workflow
leaves the marker. Files newer than the marker are then trusted, because that workflow wrote them.
`cd results && sha256sum --check SHA256SUMS` checks the hashes too.
"""

import contextlib
import os
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from hipgpt.base.errors import UserError
from hipgpt.base.files import check_folder, make_folder, replacing, sha256_of, sync

LEDGER, MARKER = "SHA256SUMS", ".SHA256SUMS.open"
ALWAYS_READ_BYTES = 64 << 20  # a larger file is read again only if its date says that it changed after it was sealed
LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")


def check_seals(results: Path) -> None:
    """Raise UserError, naming the file, if a sealed file has changed, or if the folder is not one.

    An absent file is ignored, because it is made again.
    """
    check_folder(results)
    damaged = list(_damage(results))
    if damaged:
        file, what = damaged[0]
        linked = f" and {file.resolve()}, which it links to," if file.is_symlink() else ""  # into a cache
        more = f" (and {len(damaged) - 1} more)" if damaged[1:] else ""
        raise UserError(f"{file}: {what}; delete it{linked} and run the same command again{more}")


def open_seals(results: Path) -> None:
    """Create the marker: from now on, files in results may change. The marker of a killed workflow keeps its date."""
    make_folder(results)
    (results / MARKER).open("ab").close()
    sync(results)  # before any file changes


def seal(results: Path, finished: Iterable[Path], changed: bool = False) -> None:
    """Write the hashes of finished files below results, and those of sealed files that still exist. Remove the marker.

    A sealed file that changed while the workflow ran, but is not finished, loses its hash: a stopped stage wrote it.
    changed: hash every finished file again. Otherwise only those are hashed that are newer than the list, or not in it.
    """
    ledger, sealed_at = results / LEDGER, _date(results / LEDGER)
    opened = _date(results / MARKER)
    known = dict(_entries(ledger) or []) if ledger.exists() else {}
    hashes = {
        name: sha256
        for name, sha256 in known.items()
        if (results / name).is_file() and not 0 < opened <= _date(results / name)
    }
    for file in finished:
        name = file.relative_to(results).as_posix()
        if changed or name not in hashes or _date(file) >= sealed_at:
            hashes[name] = sha256_of(file)
    if hashes:  # an empty list would look damaged
        with replacing(ledger) as stream:
            stream.write("".join(f"{sha256}  {name}\n" for name, sha256 in sorted(hashes.items())).encode())
    else:
        ledger.unlink(missing_ok=True)
    (results / MARKER).unlink(missing_ok=True)


def _damage(results: Path) -> Iterator[tuple[Path, str]]:
    """Yield (file, description of the damage) for each damaged file."""
    ledger, marker = results / LEDGER, results / MARKER
    if not ledger.exists():
        return
    entries, opened = _entries(ledger), _date(marker) if marker.exists() else None
    if entries is None:
        yield ledger, "this list of hashes is damaged"
        return
    for name, sha256 in entries:
        file = results / name
        if not file.is_file() or (opened is not None and _date(file) >= opened):
            continue
        if file.stat().st_size > ALWAYS_READ_BYTES and _date(file) <= _date(ledger):
            continue
        got = sha256_of(file)
        if got != sha256:
            yield file, f"changed since it was made (sha256 is {got}, {LEDGER} says {sha256})"
        else:
            _bring_back_from_the_future(file)


def _entries(ledger: Path) -> list[tuple[str, str]] | None:
    """Return (name, sha256) of each line. None if a line is damaged or names a file outside of the ledger's folder."""
    text = ledger.read_bytes().decode("utf-8", "replace")
    matches = [LINE.fullmatch(line) for line in text.splitlines()]
    entries = [(match[2], match[1]) for match in matches if match]
    inside = all(".." not in Path(name).parts and not Path(name).is_absolute() for name, _ in entries)
    return entries if inside and len(entries) == len(matches) and text.endswith("\n") else None


def _date(file: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return file.stat().st_mtime_ns
    return 0


def _bring_back_from_the_future(file: Path) -> None:
    """Set the date of a file to now if it is in the future, because Snakemake fails if an input is newer than now."""
    if file.stat().st_mtime > time.time():
        os.utime(file)
