"""The documents in a file, which may be plain, .gz, .zst, .xz, .bz2, .zip, .tar, or a tar that is compressed so.

Members are read from the archive itself, in the order of their names. They are never extracted, so no member can write
anywhere. A compressed tar cannot be read out of order, so it is first unpacked to an unnamed temporary file.
"""

import bz2
import contextlib
import errno
import fnmatch
import functools
import gzip
import lzma
import os
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PureWindowsPath
from typing import IO, BinaryIO, Protocol, cast

import zstandard

from hipgpt.base.errors import UserError
from hipgpt.base.files import BLOCK

# The limit of what a file may unpack to, whatever its headers promise. Text compresses 3 to 30 times. The limit of
# deflate is 1,032 times, which only a decompression bomb reaches.
UNPACKED_BYTES_ALWAYS_ALLOWED = 256 << 20
UNPACKED_BYTES_PER_BYTE = 200
COMPRESSED = (".gz", ".zst", ".xz", ".bz2")
COMPRESSED_TAR = (".tgz", *(f".tar{suffix}" for suffix in COMPRESSED))
DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    zstandard.ZstdError,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,  # zipfile: a compression method that it does not know
    ValueError,  # tarfile and zipfile: a field of a header that is not a number
    IndexError,  # tarfile and zipfile: a field of a header that is cut off
)
LONGEST_READ = 64 << 20  # tarfile reads a long name at once, whatever length its header gives

Document = tuple[str, Iterator[bytes]]
Entry = tuple[str, bool, Callable[[], IO[bytes]]]  # name, whether it is a regular file, how to open it


class Source(Protocol):
    """The methods of an open file that are used here."""

    def read(self, size: int, /) -> bytes: ...
    def seek(self, offset: int, whence: int = ..., /) -> int: ...
    def tell(self) -> int: ...


def documents(path: Path, members: str | None, scratch: Path) -> Iterator[Document]:
    """Yield (name, blocks of bytes) for each document in path. A document must be read before the next is asked for.

    members: pattern of the requested archive members (fnmatch; * also matches /), None for all. scratch: folder with
    space for one unpacked tar. Raises UserError, naming the file and the member, if the file is damaged or unpacks to
    more than it may, if a member is a link, a device or outside of the archive's folder, or if nothing matches.
    """
    name = path.name.lower()
    check_members(path, members)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_damage_named(path))
        if name.endswith(".zip"):
            yield from _selected(path, _zip_entries(stack.enter_context(zipfile.ZipFile(path))), members)
            return
        file: Source = stack.enter_context(_decompressed(path))
        if name.endswith(COMPRESSED_TAR):
            unpacked = stack.enter_context(tempfile.TemporaryFile(dir=scratch))
            unpacked.writelines(_metered(path, file, _Allowance(path)))
            unpacked.seek(0)
            file = unpacked
        if name.endswith((".tar", *COMPRESSED_TAR)):
            bounded = cast(IO[bytes], _Bounded(file))  # tarfile calls read, seek and tell, nothing else
            archive = stack.enter_context(tarfile.open(fileobj=bounded, mode="r:"))
            yield from _selected(path, _tar_entries(archive), members)
        elif name.endswith(COMPRESSED):
            yield path.stem, _metered(path, file, _Allowance(path))
        else:
            yield path.name, iter(functools.partial(file.read, BLOCK), b"")


def check_members(path: Path, members: str | None) -> None:
    """Raise UserError if members are requested of a file that is not an archive."""
    if members is not None and not path.name.lower().endswith((".zip", ".tar", *COMPRESSED_TAR)):
        raise UserError(f"{path}: is not an archive, so members: {members!r} selects nothing; remove that key")


@contextlib.contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except DAMAGE as error:
        raise _damaged(path, error) from error
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # bz2: no such stream; zipfile: an offset before the start
            raise
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{path}: damaged, or of another format than its extension says ({error}); remove it if it was downloaded, "
        "otherwise replace it"
    )


class _Bounded:
    """A file that refuses reads and seeks out of bounds, because tarfile trusts the sizes and offsets of headers."""

    def __init__(self, file: Source) -> None:
        self._file, self.tell = file, file.tell
        self._size = file.seek(0, os.SEEK_END)
        file.seek(0)

    def read(self, size: int) -> bytes:
        if not 0 <= size <= LONGEST_READ:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._file.read(size)

    def seek(self, offset: int) -> int:
        if not 0 <= offset <= self._size:
            raise tarfile.ReadError("unexpected end of data")
        return self._file.seek(offset)


@contextlib.contextmanager
def _decompressed(path: Path) -> Iterator[Source]:
    with open(path, "rb") as file:
        if path.name.lower().endswith((".gz", ".tgz")):
            yield gzip.GzipFile(fileobj=file)
        elif path.name.lower().endswith(".xz"):
            yield lzma.LZMAFile(file)  # noqa: SIM115 (its file is closed here)
        elif path.name.lower().endswith(".bz2"):
            yield bz2.BZ2File(file)  # noqa: SIM115
        elif path.name.lower().endswith(".zst"):
            _check_last_frame(file)
            yield zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        else:
            yield file


def _check_last_frame(file: BinaryIO) -> None:
    """Raise EOFError if a .zst file ends within a frame, because zstandard's reader does not notice that.

    Walks the headers of frames and blocks (RFC 8878, 3.1.1) and leaves the file at its beginning.
    """
    size = file.seek(0, os.SEEK_END)
    offset = file.seek(0)
    while offset < size:
        head = file.read(18)
        if head[1:4] == b"\x2a\x4d\x18":  # a skippable frame: magic, length, content
            offset = file.seek(offset + 8 + int.from_bytes(head[4:8], "little"))
            continue
        checksum = 4 * zstandard.get_frame_parameters(head).has_checksum
        offset = file.seek(offset + zstandard.frame_header_size(head))
        last = False
        while not last:
            block = file.read(3)
            last, kind = bool(block[:1] and block[0] & 1), block[:1] and block[0] >> 1 & 3
            length = 1 if kind == 1 else int.from_bytes(block, "little") >> 3  # kind 1: one byte, repeated
            offset = file.seek(offset + 3 + length)
            if len(block) < 3 or offset > size:
                raise EOFError("it ends within a frame")
        offset = file.seek(offset + checksum)
    if offset > size:
        raise EOFError("it ends within a frame")
    file.seek(0)


class _Allowance:
    """The bytes that a file may still unpack to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.limit = UNPACKED_BYTES_ALWAYS_ALLOWED + UNPACKED_BYTES_PER_BYTE * path.stat().st_size
        self.left = self.limit

    def take(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise UserError(
                f"{self.path}: unpacks to more than {self.limit:,} bytes, {UNPACKED_BYTES_PER_BYTE} times its size: "
                "refused as a decompression bomb; if you trust it, unpack it by hand and use kind: file"
            )


def _metered(path: Path, file: Source, allowance: _Allowance) -> Iterator[bytes]:
    with _damage_named(path):
        while block := file.read(BLOCK):
            allowance.take(len(block))
            yield block


def _zip_entries(archive: zipfile.ZipFile) -> Iterator[Entry]:
    for info in archive.infolist():
        if info.flag_bits & 1:
            raise UserError(f"{archive.filename}: member {info.filename!r} is encrypted; unpack the archive by hand")
        if not info.is_dir():
            regular = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)
            yield info.filename, regular, functools.partial(archive.open, info)


def _tar_entries(archive: tarfile.TarFile) -> Iterator[Entry]:
    for info in archive:
        if not info.isdir():
            yield info.name, info.isreg(), functools.partial(_open_member, archive, info)


def _open_member(archive: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    file = archive.extractfile(info)
    assert file is not None  # because only regular files are opened
    return file


def _selected(path: Path, entries: Iterator[Entry], members: str | None) -> Iterator[Document]:
    """Yield the requested members in the order of their names. If a name occurs twice, the later entry counts."""
    every = {name: (regular, opened) for name, regular, opened in entries}
    requested = sorted(name for name in every if fnmatch.fnmatchcase(name, members or "*"))
    if not requested:
        some = ", ".join(sorted(every)[:5]) or "nothing"
        raise UserError(f"{path}: no member matches {members or '*'!r}; it holds {len(every)} files: {some}, ...")
    allowance = _Allowance(path)
    for name in requested:
        regular, opened = every[name]
        inside = PureWindowsPath(name)  # a Windows path knows /, \ and drives
        if inside.anchor or ".." in inside.parts:
            raise UserError(f"{path}: member {name!r} points outside the archive's folder: refused")
        if not regular:
            raise UserError(f"{path}: member {name!r} is a link or a device, not a file: refused")
        with opened() as file:
            yield name, _metered(path, file, allowance)
