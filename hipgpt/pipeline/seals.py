"""Seals: the SHA-256 of a rule's outputs, in the format of sha256sum, written when the rule is done.

`cd results/runs/default && sha256sum --check *.sha256` checks all of them. A start of the workflow does so by itself
(`check_seals`), because Snakemake would build on a damaged file, or leave it as it is.
"""

import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from hipgpt.base.errors import UserError, exit_on_user_error
from hipgpt.base.files import replacing, sha256_of

ALWAYS_READ_BYTES = 64 << 20  # a larger file is read again only if its date says that it changed after its seal
LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")
PLACES = ("*.sha256", "corpora/*/*.sha256", "corpora/*/*/*.sha256", "runs/*/*.sha256", "sweeps/*/*.sha256")


def write_seal(files: Sequence[Path], seal: Path) -> None:
    """Write the hashes of files below the seal's folder."""
    lines = [f"{sha256_of(file)}  {file.relative_to(seal.parent).as_posix()}\n" for file in files]
    with replacing(seal) as stream:
        stream.write("".join(lines).encode())


def check_seals(results: Path) -> None:
    """Raise UserError, naming it, if a sealed file in results changed since; an absent one will be made again."""
    damaged = [pair for place in PLACES for seal in sorted(results.glob(place)) for pair in _damage(seal)]
    if damaged:
        file, what = damaged[0]
        linked = f" and {file.resolve()}, which it links to," if file.is_symlink() else ""  # a cache's
        more = f" (and {len(damaged) - 1} more)" if damaged[1:] else ""
        raise UserError(f"{file}: {what}; delete it{linked} and run the same command again{more}")


def _damage(seal: Path) -> Iterator[tuple[Path, str]]:
    """Yield each damaged file of a seal, and what is wrong with it."""
    text = seal.read_bytes().decode("utf-8", "replace")
    if not text.endswith("\n"):
        yield seal, "this seal is damaged"
        return
    for line in text.splitlines():
        match = LINE.fullmatch(line)
        if match is None or ".." in Path(match[2]).parts or Path(match[2]).is_absolute():
            yield seal, "this seal is damaged"
            return
        file = seal.parent / match[2]
        if not file.is_file() or _surely_unchanged(file, seal):
            continue
        got = sha256_of(file)
        if got != match[1]:
            yield file, f"changed since it was made (sha256 is {got}, its seal {seal.name} says {match[1]})"
        else:
            _bring_back_from_the_future(file)
    _bring_back_from_the_future(seal)


def _surely_unchanged(file: Path, seal: Path) -> bool:
    found = file.stat()
    return found.st_size > ALWAYS_READ_BYTES and found.st_mtime_ns <= seal.stat().st_mtime_ns


def _bring_back_from_the_future(file: Path) -> None:
    """Date a whole file today if the clock was ahead when it was made: Snakemake fails where an input is newer."""
    if file.stat().st_mtime > time.time():
        os.utime(file)


@exit_on_user_error
def main() -> None:
    """Seal the files of the command line; the last one is the seal."""
    *files, seal = map(Path, sys.argv[1:])
    write_seal(files, seal)


if __name__ == "__main__":
    main()
