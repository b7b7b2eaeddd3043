"""A corpus: documents are fetched, verified, cleaned, and split into a training and a validation text.

A corpus may be larger than memory: a document is copied in blocks, and each cleaning step holds at most 64 KiB in
addition to its block. The folder that build_corpus writes needs space for the corpus once.
"""

import hashlib
import itertools
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from hipgpt.base.errors import UserError
from hipgpt.base.files import BLOCK, matching_files, replacing, sha256_of
from hipgpt.base.json_files import write_json
from hipgpt.data.archives import documents
from hipgpt.data.download import fetch, fetch_sdist, without_password
from hipgpt.data.plain_text import plain_text

Blocks = Iterator[bytes]

GUTENBERG_HEADER_BYTES = 64 << 10  # a document has its licence header within its first bytes, or has none
GUTENBERG_START = re.compile(rb"\*\*\* ?START OF TH(?:E|IS) PROJECT GUTENBERG EBOOK[^*]{0,400}\*\*\*\s*")
GUTENBERG_END = re.compile(rb"\s{0,64}\*\*\* ?END OF TH(?:E|IS) PROJECT GUTENBERG EBOOK")
GUTENBERG_END_BYTES = 256  # more than a match of GUTENBERG_END needs, blank lines included


def strip_bom(blocks: Blocks) -> Blocks:
    """Drop a UTF-8 byte order mark at the document's start."""
    start = b""
    for block in blocks:
        start += block
        if len(start) >= 3:
            break
    yield start.removeprefix(b"\xef\xbb\xbf")
    yield from blocks


def normalize_newlines(blocks: Blocks) -> Blocks:
    """Turn every CR LF and every lone CR into LF."""
    held = b""  # a CR at a block's end, whose LF may open the next block
    for block in blocks:
        block = held + block
        held = b"\r" if block.endswith(b"\r") else b""
        yield block.removesuffix(b"\r").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    yield held.replace(b"\r", b"\n")


def strip_gutenberg(blocks: Blocks) -> Blocks:
    """Drop the header and the footer of Project Gutenberg with their marker lines, if there is a START marker."""
    text = b""
    for block in blocks:
        text += block
        if len(text) >= GUTENBERG_HEADER_BYTES:
            break
    start = GUTENBERG_START.search(text)
    if start is None:
        yield text
        yield from blocks
        return
    held = b""  # a block's last bytes, which may begin the END marker
    for block in itertools.chain([text[start.end() :]], blocks):
        text = held + block
        if end := GUTENBERG_END.search(text):
            yield text[: end.start()] + b"\n"
            return
        yield text[:-GUTENBERG_END_BYTES]
        held = text[-GUTENBERG_END_BYTES:]
    yield held


CLEANING: dict[str, Callable[[Blocks], Blocks]] = {
    "strip_bom": strip_bom,
    "normalize_newlines": normalize_newlines,
    "strip_gutenberg": strip_gutenberg,
}


def split_position(file: BinaryIO, begin: int, size: int, validation_fraction: float) -> int:
    """Return the length in bytes of the training part of the document at file[begin : begin + size], its beginning.

    The part ends with the last line that ends at or before (1 - validation_fraction) * size. If that line is so long
    that more than twice validation_fraction would remain, the part ends with the last whole UTF-8 character instead.
    """
    target = int((1 - validation_fraction) * size)
    lowest = max(0, target - int(validation_fraction * size))
    high = target
    while high > lowest:
        low = max(lowest, high - BLOCK)
        file.seek(begin + low)
        newline = file.read(high - low).rfind(b"\n")
        if newline >= 0:
            return low + newline + 1
        high = low
    for position in range(target, max(target - 4, -1), -1):
        file.seek(begin + position)
        if (file.read(1) or b" ")[0] & 0xC0 != 0x80:  # not inside a character
            return position
    return target


def build_corpus(name: str, settings: Mapping[str, Any], output: Path, downloads: Path) -> None:
    """Write output/train.txt, validation.txt and provenance.json of the corpus that settings describe.

    settings: the corpus's entry in config.yaml, checked by the schema; downloads: folder that keeps downloaded files.
    Raises UserError, naming the corpus, if its source cannot be fetched, has an unexpected hash, or is too short.
    """
    try:
        source, paths = _source(name, settings, downloads)
        record = {"corpus": name, "source": source, "sha256": _sha256_of_all(paths), "cleaning": settings["cleaning"]}
        record["bytes"] = sum(path.stat().st_size for path in paths)
        record["validation_fraction"] = settings["validation_fraction"]
        if settings.get("sha256", record["sha256"]) != record["sha256"]:
            raise UserError(
                f"{source}: sha256 is {record['sha256']}, expected {settings['sha256']}; correct the file or the config"
            )
        with replacing(output / "train.txt") as train, replacing(output / "validation.txt") as validation:
            record["documents"] = [
                {"name": document, **_append(train, validation, plain_text(document, blocks), settings)}
                for path in paths
                for document, blocks in documents(path, settings.get("members"), scratch=output)
            ]
            _check_split(train.tell(), validation.tell(), settings["validation_fraction"])
        write_json(output / "provenance.json", record)
    except UserError as error:
        raise UserError(f"corpus {name}: {error}") from error


def _source(name: str, settings: Mapping[str, Any], downloads: Path) -> tuple[str, list[Path]]:
    """Return the origin of the corpus in words, and its files on this machine."""
    sha256 = settings.get("sha256")
    if settings["kind"] == "file":
        paths = matching_files(settings["path"])
        if not paths:
            raise UserError(f"path {settings['path']!r} matches no file in {Path.cwd()}")
        return settings["path"] if isinstance(settings["path"], str) else ", ".join(settings["path"]), paths
    if settings["kind"] == "url":
        folder = downloads / f"{name}-{_short_hash(settings['url'])}"
        return without_password(settings["url"]), [fetch(settings["url"], folder, sha256)]
    identity = f"{settings['package']} {settings['version']}"
    folder = downloads / f"{name}-{_short_hash(identity)}"
    path = fetch_sdist(settings["package"], settings["version"], folder, sha256)
    return f"package index: {identity}, {path.name}", [path]


def _short_hash(identity: str) -> str:
    """Return a short hash of a source, which keeps its downloads apart from those of another source of the corpus."""
    return hashlib.sha256(identity.encode()).hexdigest()[:8]


def _sha256_of_all(paths: list[Path]) -> str:
    """Return the sha256 of a single file. For several files, return that of the lines that `sha256sum` prints."""
    if len(paths) == 1:
        return sha256_of(paths[0])
    return hashlib.sha256("".join(f"{sha256_of(path)}  {path}\n" for path in paths).encode()).hexdigest()


def _append(train: BinaryIO, validation: BinaryIO, blocks: Blocks, settings: Mapping[str, Any]) -> dict[str, str | int]:
    """Append the two parts of the cleaned document to the two files; return its sha256, bytes and split_at."""
    for step in settings["cleaning"]:
        blocks = CLEANING[step](blocks)
    begin = train.tell()
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
        train.write(block)
    size = train.tell() - begin
    split_at = split_position(train, begin, size, settings["validation_fraction"])
    train.seek(begin + split_at)
    shutil.copyfileobj(train, validation, BLOCK)
    train.seek(begin + split_at)
    train.truncate()
    return {"sha256": digest.hexdigest(), "bytes": size, "split_at": split_at}


def _check_split(train_bytes: int, validation_bytes: int, validation_fraction: float) -> None:
    for split, size in (("training", train_bytes), ("validation", validation_bytes)):
        if size == 0:
            raise UserError(
                f"its {train_bytes + validation_bytes} bytes leave the {split} split empty at validation_fraction: "
                f"{validation_fraction}; give it more text or another fraction"
            )
