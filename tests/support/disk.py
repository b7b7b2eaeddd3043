"""Files and folders as inodes, and the operations that change them."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple


class Write(NamedTuple):
    """Bytes put into a file at an offset."""

    inode: int
    offset: int
    data: bytes


class Resize(NamedTuple):
    """A file cut or extended to a size."""

    inode: int
    size: int


class Sync(NamedTuple):
    """The end of an fsync: all of a file's bytes, or all of a folder's entries, are on the disk."""

    inode: int


class Entries(NamedTuple):
    """Entries set at once, as rename does: (folder, name, inode), with None for the inode of a removed entry.

    new_folder: the inode of the first change is a folder that did not exist before.
    """

    changes: tuple[tuple[int, str, int | None], ...]
    new_folder: bool = False


Operation = Write | Resize | Sync | Entries
Inode = bytearray | dict[str, int]  # a file's contents, or a folder's entries


@dataclass
class Disk:
    """Inodes by number. Number 0 is the folder that is watched."""

    inodes: dict[int, Inode] = field(default_factory=lambda: {0: {}})

    def add(self, inode: Inode) -> int:
        number = len(self.inodes)
        self.inodes[number] = inode
        return number

    def apply(self, operation: Operation) -> None:
        match operation:
            case Write(number, offset, data):
                content = self.inodes[number]
                content.extend(bytes(max(0, offset + len(data) - len(content))))
                content[offset : offset + len(data)] = data
            case Resize(number, size):
                content = self.inodes[number]
                content.extend(bytes(max(0, size - len(content))))
                del content[size:]
            case Entries(changes, _):
                for folder, name, number in changes:
                    self.inodes[folder].pop(name, None)
                    if number is not None:
                        self.inodes[folder][name] = number

    def files(self, number: int = 0, path: str = "") -> Iterator[tuple[str, bytes | None]]:
        """Yield (path, contents) of every file below a folder, and (path, None) of every folder."""
        for name, inner in sorted(self.inodes[number].items()):
            below = f"{path}{name}"
            if isinstance(self.inodes[inner], dict):
                yield below, None
                yield from self.files(inner, f"{below}/")
            else:
                yield below, bytes(self.inodes[inner])


def read_disk(root: Path) -> Disk:
    """Return the files and folders below root. Several hard links of a file become one inode."""
    disk, known = Disk(), {}

    def read(folder: Path) -> dict[str, int]:
        entries = {}
        for item in os.scandir(folder):
            key = item.inode()
            if key not in known:
                known[key] = disk.add({} if item.is_dir(follow_symlinks=False) else bytearray(_bytes_of(item)))
                if item.is_dir(follow_symlinks=False):
                    disk.inodes[known[key]].update(read(Path(item.path)))
            entries[item.name] = known[key]
        return entries

    disk.inodes[0].update(read(root))
    return disk


def _bytes_of(item: os.DirEntry) -> bytes:
    assert item.is_file(follow_symlinks=False), f"{item.path}: expected files and folders alone"
    return Path(item.path).read_bytes()
