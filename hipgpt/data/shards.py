"""Write token shards: encode a corpus into the files that training reads."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from mmap import ACCESS_READ, MADV_DONTNEED, mmap
from pathlib import Path
from typing import TypedDict

import numpy as np

from hipgpt.base.errors import UserError
from hipgpt.base.files import replacing, sha256_of
from hipgpt.base.json_files import read_json, write_json
from hipgpt.base.ordered_map import ordered_map
from hipgpt.data.tokenizer.chunks import next_cut
from hipgpt.data.tokenizer.tokenizer import Tokenizer
from hipgpt.data.tokens import HEADER, HEADER_BYTES, MAGIC, TOKEN_TYPES, ShardEntry, TokenArray

MOST_TOKENS = 2**31 - 1  # of a shard: its header counts in int32
BLOCK = 1 << 20  # bytes of text that a thread encodes at once

Part = tuple[int, int, bool]  # begin and end in the text of the split; whether a document begins there


class Document(TypedDict):
    """A document in provenance.json. bytes: its size; split_at: bytes of its training part, which comes first."""

    bytes: int
    split_at: int


def write_shards(corpus: Path, tokenizer: Tokenizer, output: Path, train_shards: int, threads: int = 1) -> None:
    """Write output/train_00000.bin to train_<train_shards - 1>.bin, validation_00000.bin and manifest.json.

    corpus: folder that build_corpus wrote. The text is memory-mapped. It is cut into shards of about equal bytes, and
    these into blocks, at positions where a cut changes no token. Threads encode blocks, which are written in order, so
    the files do not depend on the number of threads; at most two blocks for each thread wait to be written. Raises
    UserError if the folder is not whole, if the text cannot be cut into that many shards, or if a shard would hold more
    tokens than its header can count.
    """
    documents = _documents(corpus)
    lengths = {
        "train": [document["split_at"] for document in documents],
        "validation": [document["bytes"] - document["split_at"] for document in documents],
    }
    shards = {"train": train_shards, "validation": 1}
    manifest = {
        "format": "llm.c",
        "version": _version(tokenizer),
        "vocab_size": tokenizer.vocab_size,
        "tokenizer_sha256": tokenizer.sha256,
        "corpus_sha256": sha256_of(corpus / "provenance.json"),
        "splits": {
            split: _write_split(corpus / f"{split}.txt", lengths[split], tokenizer, output, shards[split], threads)
            for split in shards
        },
    }
    write_json(output / "manifest.json", manifest)


def _documents(corpus: Path) -> list[Document]:
    path, remedy = corpus / "provenance.json", "run the download stage"
    shape = {"documents": [{"bytes": int, "split_at": int}]}
    found: list[Document] = read_json(path, shape, remedy)["documents"]
    if any(not 0 <= document["split_at"] <= document["bytes"] for document in found):
        raise UserError(f"{path}: a document is split outside of its bytes; delete it and {remedy}")
    return found


def _version(tokenizer: Tokenizer) -> int:
    return 1 if tokenizer.vocab_size <= 1 << 16 else 2


def _write_split(
    path: Path, lengths: list[int], tokenizer: Tokenizer, output: Path, shards: int, threads: int
) -> list[ShardEntry]:
    """Write the shards of a split and return their manifest entries. lengths: bytes of each document in this split."""
    size = path.stat().st_size if path.is_file() else 0
    if size == 0 or size != sum(lengths):
        raise UserError(
            f"{path}: {size} bytes, but provenance.json says {sum(lengths)}; delete both and run the download stage"
        )
    entries: list[ShardEntry] = []
    with open(path, "rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as text:
        for index, parts in enumerate(_parts_of_shards(path, text, lengths, shards, tokenizer.undivided)):
            shard = output / f"{path.stem}_{index:05}.bin"
            tokens = _write_shard(shard, text, parts, tokenizer, threads)
            text_bytes = sum(end - begin for begin, end, _ in parts)
            entries.append(
                {"file": shard.name, "tokens": tokens, "sha256": sha256_of(shard), "bytes_of_text": text_bytes}
            )
    return entries


def _parts_of_shards(
    path: Path, text: mmap, lengths: list[int], shards: int, undivided: Sequence[bytes]
) -> Iterator[list[Part]]:
    """Yield, for each shard, its parts of documents. A document without text in this split has no part."""
    ends = list(accumulate(length for length in lengths if length))
    begins = [0, *ends[:-1]]
    targets = [len(text) * index // shards for index in range(1, shards)]
    inner = (min(next_cut(text, target, undivided), ends[bisect_right(ends, target)]) for target in targets)
    cuts = [0, *inner, len(text)]
    for low, high in pairwise(cuts):
        if low >= high:
            raise UserError(f"{path}: {len(text)} bytes cannot be cut into {shards} shards; lower train_shards")
        held = slice(bisect_right(ends, low), bisect_left(begins, high))
        yield [
            (max(begin, low), min(end, high), begin >= low) for begin, end in zip(begins[held], ends[held], strict=True)
        ]


def _write_shard(path: Path, text: mmap, parts: list[Part], tokenizer: Tokenizer, threads: int) -> int:
    """Write one shard; return its number of tokens."""
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
    return count


def _encoded(text: mmap, parts: list[Part], tokenizer: Tokenizer, threads: int) -> Iterator[TokenArray]:
    """Yield the tokens of each block of the parts, in order, in the dtype of the shard."""
    dtype = TOKEN_TYPES[_version(tokenizer)]

    def encode(block: Part) -> TokenArray:
        begin, end, opens_document = block
        tokens = tokenizer.encode(text[begin:end]).astype(dtype)
        return np.concatenate([np.array([tokenizer.end_of_text], dtype), tokens]) if opens_document else tokens

    for tokens in ordered_map(encode, _blocks(text, parts, tokenizer.undivided), threads):
        yield tokens
        text.madvise(MADV_DONTNEED)  # otherwise the process would seem to grow by the whole text


def _blocks(text: mmap, parts: list[Part], undivided: Sequence[bytes]) -> Iterator[Part]:
    for begin, end, opens_document in parts:
        while begin < end:
            cut = end if end - begin <= BLOCK else min(next_cut(text, begin + BLOCK, undivided), end)
            yield begin, cut, opens_document
            begin, opens_document = cut, False
