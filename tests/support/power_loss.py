"""What a power loss may leave of recorded operations, by the promises of POSIX alone.

Bytes of a file are on the disk after its fsync. Until then none, some or all of them may be, also as zeros, because
a file system may store a size before the bytes. An entry of a folder (a new file, a rename, a removal) is on the disk
after an fsync of the folder. Until then each may have taken place or not, whatever came before or after it.
"""

import hashlib
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from support.disk import Disk, Entries, Operation, Resize, Sync, Write

Pending = list[Operation]  # operations that are not known to be on the disk, in order
Contents = dict[str, bytes | None]  # of files by path; None for a folder


def states(start: Disk, operations: Sequence[Operation], draw: random.Random, drawn: int) -> Iterator[Contents]:
    """Yield the different contents that a power loss after any of the operations may leave.

    Those of the extremes come for every cut: all or none of the pending entries, the last alone, all but the last, each
    with all, none, a part or zeros of the pending bytes. drawn: how many more choices are drawn for each cut.
    """
    seen = set()
    for cut in range(len(operations) + 1):
        durable, entries, bytes_of = _pending(start, operations[:cut])
        subsets = [entries, [], entries[-1:], entries[:-1]]
        choices = [(chosen, data) for chosen in subsets for data in DATA.values()]
        for _ in range(drawn):
            mixed = [draw.choice([*DATA.values()]) for _ in bytes_of]
            choices.append(([one for one in entries if draw.random() < 0.5], _each(mixed)))
        for chosen, data in choices:
            contents = _after(durable, chosen, bytes_of, data)
            if (digest := _digest(contents)) not in seen:
                seen.add(digest)
                yield contents


def restore(root: Path, contents: Contents) -> None:
    """Make root hold these files and folders and nothing else."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    for path, content in contents.items():
        (root / path).mkdir() if content is None else (root / path).write_bytes(content)


def _pending(start: Disk, operations: Sequence[Operation]) -> tuple[Disk, list[Entries], dict[int, Pending]]:
    """Return what is on the disk for certain, and the operations that may be: entries, and bytes by inode."""
    durable = Disk({number: inode.copy() for number, inode in start.inodes.items()})
    entries: list[tuple[Entries, set[int]]] = []  # with the folders that are not synchronized yet
    bytes_of: dict[int, Pending] = {}
    for operation in operations:
        match operation:
            case Write(number) | Resize(number):
                durable.inodes.setdefault(number, bytearray())
                bytes_of.setdefault(number, []).append(operation)
            case Entries(changes, new_folder):
                if new_folder:
                    durable.inodes[changes[0][2]] = {}
                for _, _, number in changes:
                    if number is not None:
                        durable.inodes.setdefault(number, bytearray())
                entries.append((operation, {folder for folder, _, _ in changes}))
            case Sync(number):
                for done in bytes_of.pop(number, []):
                    durable.apply(done)
                for entry, waiting in entries:
                    waiting.discard(number)
                    if not waiting:
                        durable.apply(entry)
                entries = [(entry, waiting) for entry, waiting in entries if waiting]
    return durable, [entry for entry, _ in entries], bytes_of


def _half(disk: Disk, pending: Pending) -> None:
    for operation in pending[: len(pending) // 2]:
        disk.apply(operation)
    if isinstance(one := pending[len(pending) // 2], Write):
        disk.apply(one._replace(data=one.data[: len(one.data) // 2]))


def _zeros(disk: Disk, pending: Pending) -> None:
    for operation in pending:
        zeros = operation._replace(data=bytes(len(operation.data))) if isinstance(operation, Write) else operation
        disk.apply(zeros)


def _all(disk: Disk, pending: Pending) -> None:
    for operation in pending:
        disk.apply(operation)


DATA: dict[str, Callable[[Disk, Pending], Any]] = {
    "all": _all,
    "none": lambda disk, pending: None,
    "half": _half,
    "zeros": _zeros,
}


def _each(mixed: list[Callable[[Disk, Pending], Any]]) -> Callable[[Disk, Pending], Any]:
    """Return a choice that takes the next of `mixed` for each file."""
    remaining = iter(mixed)
    return lambda disk, pending: next(remaining)(disk, pending)


def _after(
    durable: Disk, chosen: list[Entries], bytes_of: dict[int, Pending], data: Callable[[Disk, Pending], Any]
) -> Contents:
    disk = Disk({number: inode.copy() for number, inode in durable.inodes.items()})
    for entry in chosen:
        disk.apply(entry)
    for pending in bytes_of.values():
        data(disk, pending)
    return dict(disk.files())


def _digest(contents: Contents) -> bytes:
    digest = hashlib.sha256()
    for path, content in contents.items():
        digest.update(f"{path} {content is None}\0".encode("utf-8", "surrogateescape"))
        digest.update(hashlib.sha256(content or b"").digest())
    return digest.digest()
