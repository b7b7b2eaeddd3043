"""Write token shards: encode a corpus into the files that training reads, one by one, then their manifest."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from mmap import ACCESS_READ, mmap
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hipgpt.base.errors import UserError
from hipgpt.base.files import replacing, sha256_of
from hipgpt.base.json_files import write_json
from hipgpt.base.ordered_map import ordered_map
from hipgpt.data.split import ROW
from hipgpt.data.tokenizer.chunks import forget, next_cut
from hipgpt.data.tokenizer.tokenizer import Tokenizer
from hipgpt.data.tokens import HEADER, HEADER_BYTES, MAGIC, TOKEN_TYPES, ShardEntry, TokenArray

MOST_TOKENS = 2**31 - 1  # of a shard: its header counts in int32
VALIDATION = "validation_00000.bin"  # the only shard of its split
BLOCK = 1 << 20  # bytes of text that a thread encodes at once
ROWS_AT_ONCE = 1 << 16  # of documents.bin
COLUMNS = {"train": slice(0, 2), "validation": slice(2, 4)}  # of documents.bin
REMEDY = "delete both and run the download stage"

Part = tuple[int, int, bool]  # begin and end in the text of the split; whether a document begins there
Borders = NDArray[np.int64]  # (N, 2): where each document begins and ends in the text of the split


def shard_names(train_shards: int) -> dict[str, list[str]]:
    """Return the names of the files of each split."""
    return {
        "train": [f"train_{number:05}.bin" for number in range(train_shards)],
        "validation": [VALIDATION],
    }


def write_shard(corpus: Path, tokenizer: Tokenizer, path: Path, train_shards: int, threads: int = 1) -> None:
    """Write one shard. Its name, one of shard_names, says which part of the corpus it holds.

    corpus: folder that build_corpus wrote. The text is memory-mapped. It is cut into shards of about equal bytes, and
    these into blocks, at positions where a cut changes no token. Threads encode blocks, which are written in order, so
    the file does not depend on the number of threads; at most two blocks for each thread wait to be written. Each
    document begins with the special token that ends a text; no text becomes a special token. Raises UserError if the
    folder is not whole, if the text cannot be cut into that many shards, or if a shard would hold more tokens than its
    header can count.
    """
    splits = shard_names(train_shards)
    split = next((split for split, names in splits.items() if path.name in names), None)
    if split is None:
        raise UserError(f"{path}: expected a name from {splits['train'][0]} to {splits['train'][-1]}, or {VALIDATION}")
    with _opened(corpus, split) as (text, borders):
        names = splits[split]
        low, high = _cuts(corpus, split, text, borders, len(names))[names.index(path.name)]
        _write(path, text, _parts(borders, low, high), tokenizer, threads)


def write_manifest(corpus: Path, tokenizer: Tokenizer, folder: Path, train_shards: int) -> None:
    """Write folder/manifest.json, which lists the shards in that folder. Raises UserError as `write_shard` does."""
    manifest = {
        "format": "llm.c",
        "version": _version(tokenizer),
        "vocab_size": tokenizer.vocab_size,
        "tokenizer_sha256": tokenizer.sha256,
        "corpus_sha256": sha256_of(corpus / "provenance.json"),
        "splits": {
            split: [*_entries(corpus, split, [folder / name for name in names])]
            for split, names in shard_names(train_shards).items()
        },
    }
    write_json(folder / "manifest.json", manifest)


def _entries(corpus: Path, split: str, shards: list[Path]) -> Iterator[ShardEntry]:
    with _opened(corpus, split) as (text, borders):
        for shard, (low, high) in zip(shards, _cuts(corpus, split, text, borders, len(shards)), strict=True):
            tokens = int(np.fromfile(shard, HEADER, 3)[2])
            size = sum(end - begin for begin, end, _ in _parts(borders, low, high))
            yield {"file": shard.name, "tokens": tokens, "sha256": sha256_of(shard), "bytes_of_text": size}


def _version(tokenizer: Tokenizer) -> int:
    return 1 if tokenizer.vocab_size <= 1 << 16 else 2


@contextmanager
def _opened(corpus: Path, split: str) -> Iterator[tuple[mmap, Borders]]:
    """Give the text of a split and the borders of its documents, both memory-mapped, after a check that they fit."""
    path, documents = corpus / f"{split}.txt", corpus / "documents.bin"
    size = path.stat().st_size if path.is_file() else 0
    size_of_rows = documents.stat().st_size if documents.is_file() else 0
    if size == 0 or size_of_rows == 0 or size_of_rows % ROW.size:
        raise UserError(
            f"{path}: {size} bytes, and {documents}: {size_of_rows}, expected text and rows of {ROW.size} bytes; "
            f"{REMEDY}"
        )
    said = 0
    with open(documents, "rb") as rows:  # not through the map, whose pages would stay with the process
        while (block := np.fromfile(rows, "<i8", 4 * ROWS_AT_ONCE)).size:
            ends = np.concatenate([[said], block.reshape(-1, 4)[:, COLUMNS[split]].ravel()])
            if (ends[1:] < ends[:-1]).any():
                raise UserError(f"{documents}: its documents are not one after the other; {REMEDY}")
            said = int(ends[-1])
    if size not in (said, said + 1):  # a record's line end belongs to no document
        raise UserError(f"{path}: {size} bytes, but documents.bin says {said}; {REMEDY}")
    borders = np.memmap(documents, "<i8", mode="r").reshape(-1, 4)[:, COLUMNS[split]]
    with open(path, "rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as text:
        yield text, borders


def _cuts(corpus: Path, split: str, text: mmap, borders: Borders, shards: int) -> list[tuple[int, int]]:
    """Return where the text of each shard begins and ends."""
    ends, last = borders[:, 1], len(borders) - 1
    targets = [len(text) * index // shards for index in range(1, shards)]
    inner = (min(next_cut(text, target), int(ends[min(bisect_right(ends, target), last)])) for target in targets)
    cuts = [*pairwise([0, *inner, len(text)])]
    if any(low >= high for low, high in cuts):
        path = corpus / f"{split}.txt"
        raise UserError(f"{path}: {len(text)} bytes cannot be cut into {shards} shards; lower train_shards")
    return cuts


def _parts(borders: Borders, low: int, high: int) -> Iterator[Part]:
    """Yield the parts of documents between two positions. A document without text in this split has no part."""
    last = bisect_left(borders[:, 0], high)
    for first in range(bisect_right(borders[:, 1], low), last, ROWS_AT_ONCE):
        for begin, end in borders[first : min(first + ROWS_AT_ONCE, last)].tolist():
            if begin < end:
                yield max(begin, low), min(end, high), begin >= low


def _write(path: Path, text: mmap, parts: Iterator[Part], tokenizer: Tokenizer, threads: int) -> None:
    version = _version(tokenizer)
    count = 0
    with replacing(path) as file:
        file.write(bytes(HEADER_BYTES))  # the header is written last, because it holds the count
        for tokens in _encoded(text, parts, tokenizer, threads):
            count += len(tokens)
            if count > MOST_TOKENS:
                raise UserError(
                    f"{path}: more than {MOST_TOKENS:,} tokens, which its header cannot count; raise train_shards, "
                    "or lower validation_fraction if this is the validation split"
                )
            file.write(tokens.data)
        header = np.zeros(HEADER_BYTES // HEADER.itemsize, HEADER)
        header[:3] = MAGIC, version, count
        file.seek(0)
        file.write(header.tobytes())


def _encoded(text: mmap, parts: Iterator[Part], tokenizer: Tokenizer, threads: int) -> Iterator[TokenArray]:
    """Yield the tokens of each block of the parts, in order, in the dtype of the shard."""
    dtype = TOKEN_TYPES[_version(tokenizer)]
    border = np.array([tokenizer.end_of_text], np.uint32)

    def encode(block: list[Part]) -> TokenArray:
        ids = tokenizer.encode_ordinary([text[begin:end] for begin, end, _ in block])
        opened = (border if opens_document else border[:0] for _, _, opens_document in block)
        return np.concatenate([array for pair in zip(opened, ids, strict=True) for array in pair]).astype(dtype)

    for tokens in ordered_map(encode, _blocks(text, parts), threads):
        yield tokens
        forget(text)


def _blocks(text: mmap, parts: Iterator[Part]) -> Iterator[list[Part]]:
    """Yield the parts in groups of about BLOCK bytes. A part that does not fit is cut where that changes no token."""
    block: list[Part] = []
    room = BLOCK
    for begin, end, opens_document in parts:
        while begin < end:
            cut = end if end - begin <= room else min(next_cut(text, begin + room), end)
            block.append((begin, cut, opens_document))
            room -= cut - begin
            begin, opens_document = cut, False
            if room <= 0:
                yield block
                block, room = [], BLOCK
    if block:
        yield block
