"""A program's writes below one folder, recorded by strace as operations on inodes (files and folders).

An operation changes the contents of a file, or entries of folders, or waits until one of both is on the disk.
tests/support/power_loss.py derives from them what a power loss may leave.
"""

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from support.disk import Disk, Entries, Operation, Resize, Sync, Write, read_disk

CALLS = (
    "open,openat,creat,close,dup,dup2,dup3,fcntl,lseek,read,write,pwrite64,writev,sendfile,copy_file_range,truncate,"
    "ftruncate,fallocate,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,link,linkat,symlink,"
    "symlinkat,chdir,fchdir,clone,clone3,fork,vfork"
)
UNMODELLED = {"writev", "copy_file_range", "fallocate", "symlink", "symlinkat"}
LINE = re.compile(r"(\d+) +(\w+)\((.*)\) += (\d+|0x[0-9a-f]+)(?: .*)?$")
NUMBER = re.compile(r"\d+|0x[0-9a-f]+")  # reads are shown raw, because their bytes do not matter
TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')


def record(command: Sequence[str], root: Path, **options) -> tuple[Disk, list[Operation]]:
    """Run a command to its end; return the disk below root before it, and the operations there.

    The operations reproduce the files that the command left, or this fails: so no write of another kind is missed.
    """
    root.mkdir(parents=True, exist_ok=True)
    start, log = read_disk(root), root.with_name(f"{root.name}.strace")
    strace = [
        "strace",
        "-f",
        "-qq",
        "-xx",
        "-s",
        str(1 << 26),
        "-e",
        "signal=none",
        "-e",
        "raw=read",
        "-e",
        f"trace={CALLS}",
    ]
    done = subprocess.run([*strace, "-o", log, "--", *command], capture_output=True, encoding="utf-8", **options)
    assert done.returncode == 0, done.stdout + done.stderr
    reader = _Reader(root.resolve(), Path(options.get("cwd", ".")).resolve(), start)
    operations = reader.read(log)
    log.unlink()
    assert dict(reader.disk.files()) == dict(read_disk(root).files()), "a write was missed"
    return start, operations


@dataclass
class _Opened:
    path: str
    inode: int | None  # None outside of the root
    offset: int = 0
    appends: bool = False


@dataclass
class _Process:
    folder: str
    handles: dict[int, _Opened]


class _Reader:
    """Follows the processes of a log: their folders, open files and offsets."""

    def __init__(self, root: Path, folder: Path, start: Disk):
        self.root, self.first_folder = str(root), str(folder)
        self.disk = Disk({n: inode.copy() for n, inode in start.inodes.items()})
        self.operations: list[Operation] = []
        self.processes: dict[str, _Process] = {}

    def read(self, log: Path) -> list[Operation]:
        lines = [match.groups() for match in map(LINE.match, _whole_lines(log)) if match]
        self.parents = {result: (pid, text) for pid, call, text, result in lines if call in _FORKS}
        for pid, call, text, result in lines:
            if call not in _FORKS:
                self._call(self._process(pid), call, text, int(result, 0))
        return self.operations

    def _process(self, pid: str) -> _Process:
        if pid not in self.processes:
            if pid in self.parents:
                parent, flags = self.parents[pid]
                mother = self._process(parent)
                shares = "CLONE_FILES" in flags
                self.processes[pid] = mother if shares else _Process(mother.folder, dict(mother.handles))
            else:
                self.processes[pid] = _Process(self.first_folder, {})
        return self.processes[pid]

    def _do(self, operation: Operation) -> None:
        self.disk.apply(operation)
        self.operations.append(operation)

    def _place(self, path: str) -> tuple[int, str] | None:
        """Return folder and name of an absolute path, None outside of the root."""
        path = os.path.normpath(path)
        if not path.startswith(f"{self.root}/"):
            return None
        *folders, name = path.removeprefix(f"{self.root}/").split("/")
        number = 0
        for folder in folders:
            number = self.disk.inodes[number][folder]
        return number, name

    def _call(self, process: _Process, call: str, text: str, result: int) -> None:
        paths = [bytes.fromhex(match[1].replace("\\x", "")) for match in TEXT.finditer(text)]
        assert not any(match[2] for match in TEXT.finditer(text)), f"{call}: cut off by strace"
        words = TEXT.sub("", text).split(", ")
        folders = [word.strip() for word in words if word.strip() == "AT_FDCWD" or word.strip().isdecimal()]

        def path(index: int) -> str:
            base = process.folder
            if call.endswith(("at", "at2")) and folders[index] != "AT_FDCWD":
                base = process.handles[int(folders[index])].path
            return os.path.join(base, paths[index].decode("utf-8", "surrogateescape"))

        opened = process.handles.get(int(words[0], 0)) if NUMBER.fullmatch(words[0]) else None
        watched = opened is not None and opened.inode is not None
        match call:
            case "open" | "openat" | "creat":
                process.handles[result] = self._open(path(0), text)
            case "close":
                process.handles.pop(int(words[0]), None)
            case "dup" | "dup2" | "dup3":
                process.handles[result] = opened
            case "fcntl" if "F_DUPFD" in text:
                process.handles[result] = opened
            case "lseek" if watched:
                opened.offset = result
            case "read" if watched:
                opened.offset += result
            case "write" if watched and result:
                at = len(self.disk.inodes[opened.inode]) if opened.appends else opened.offset
                self._do(Write(opened.inode, at, paths[0][:result]))
                opened.offset = at + result
            case "pwrite64" if watched:
                self._do(Write(opened.inode, int(words[-1]), paths[0][:result]))
            case "sendfile" if watched:
                source, offset = process.handles[int(words[1])], re.match(r"\[(\d+)\]", words[2])
                assert source.inode is not None and offset, "sendfile from elsewhere, which is not recorded"
                data = bytes(self.disk.inodes[source.inode][int(offset[1]) :][:result])
                self._do(Write(opened.inode, opened.offset, data))
                opened.offset += result
            case "ftruncate" if watched:
                self._do(Resize(opened.inode, int(words[1])))
            case "truncate" if place := self._place(path(0)):
                self._do(Resize(self.disk.inodes[place[0]][place[1]], int(words[1])))
            case "fsync" | "fdatasync" if watched:
                self._do(Sync(opened.inode))
            case "mkdir" | "mkdirat" if place := self._place(path(0)):
                self._do(Entries(((*place, self.disk.add({})),), new_folder=True))
            case "unlink" | "unlinkat" | "rmdir" if place := self._place(path(0)):
                self._do(Entries(((*place, None),)))
            case "rename" | "renameat" | "renameat2" | "link" | "linkat":
                self._move(self._place(path(0)), self._place(path(1)), keeps="link" in call)
            case "chdir":
                process.folder = os.path.normpath(path(0))
            case "fchdir":
                process.folder = opened.path
            case _ if call in UNMODELLED and (watched or (paths and self._place(path(0)))):
                raise NotImplementedError(f"{call}({text[:200]}): not modelled")

    def _open(self, path: str, text: str) -> _Opened:
        flags = text[text.rindex('"') :]
        if os.path.normpath(path) == self.root:
            return _Opened(path, 0)
        place = self._place(path)
        if place is None:
            return _Opened(path, None)
        folder, name = place
        number = self.disk.inodes[folder].get(name)
        if number is None:
            number = self.disk.add(bytearray())
            self._do(Entries(((folder, name, number),)))
        elif "O_TRUNC" in flags and self.disk.inodes[number]:
            self._do(Resize(number, 0))
        return _Opened(path, number, appends="O_APPEND" in flags)

    def _move(self, old: tuple[int, str] | None, new: tuple[int, str] | None, keeps: bool) -> None:
        assert (old is None) == (new is None), "a rename into or out of the watched folder"
        if old and new and self.disk.inodes[new[0]].get(new[1]) != self.disk.inodes[old[0]][old[1]]:
            set_new = (*new, self.disk.inodes[old[0]][old[1]])
            self._do(Entries((set_new,) if keeps else (set_new, (*old, None))))


_FORKS = ("clone", "clone3", "fork", "vfork")


def _whole_lines(log: Path) -> Iterator[str]:
    """Yield the lines, each call that another process interrupted in one, where it ended."""
    begun: dict[str, str] = {}
    with open(log, encoding="ascii") as file:
        for line in file:
            pid, text = line.rstrip("\n").split(maxsplit=1)
            if text.endswith("<unfinished ...>"):
                begun[pid] = text.removesuffix("<unfinished ...>").rstrip()
            elif text.startswith("<... "):
                yield f"{pid} {begun.pop(pid, '')}{text.split('resumed>', 1)[1]}"
            else:
                yield f"{pid} {text}"
