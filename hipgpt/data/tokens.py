"""Read token shards, which are files in the format of llm.c. They are memory-mapped."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from hipgpt.base.errors import UserError
from hipgpt.base.files import sha256_of
from hipgpt.base.json_files import read_json

MAGIC = 20240520
TokenArray = NDArray[np.unsignedinteger[Any]]
TOKEN_TYPES: dict[int, np.dtype[np.unsignedinteger[Any]]] = {1: np.dtype("<u2"), 2: np.dtype("<u4")}  # by version
HEADER = np.dtype("<i4")
HEADER_BYTES = 256 * HEADER.itemsize
BLOCK = 1 << 20  # tokens that are checked at once
REMEDY = "run the tokenize stage again"
SHARD = {"file": str, "tokens": int, "sha256": str}
MANIFEST = {"version": int, "tokenizer_sha256": str, "splits": {"train": [SHARD], "validation": [SHARD]}}
SHARD_NAME = re.compile(r"\w+\.bin")  # a file in the folder of its manifest


class ShardEntry(TypedDict):
    """A shard in the manifest. tokens: their number; bytes_of_text: bytes that they stand for, for people to read."""

    file: str
    tokens: int
    sha256: str
    bytes_of_text: int


class Tokens:
    """The tokens of a split as one sequence over its memory-mapped shards."""

    def __init__(self, shards: Sequence[TokenArray]) -> None:
        """shards: arrays (N,) of tokens, unsigned."""
        self._shards = shards
        self._ends = np.cumsum([len(shard) for shard in shards])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def windows(self, starts: NDArray[np.int64], length: int) -> NDArray[np.int32]:
        """Return tokens (B, length) int32: row b is tokens[starts[b] : starts[b] + length], which may span shards.

        Raises ValueError for starts that are not an array (B,) of integers, or a window that is not inside the tokens.
        """
        starts = np.asarray(starts)
        if starts.ndim != 1 or starts.dtype.kind not in "iu":
            raise ValueError(f"windows: got starts {starts.dtype} {starts.shape}, expected integers (B,)")
        if not 0 <= length <= len(self) or (
            len(starts) and not 0 <= starts.min() <= starts.max() <= len(self) - length
        ):
            raise ValueError(
                f"windows: got {length} tokens from {starts}, expected windows inside of {len(self)} tokens"
            )
        starts = starts.astype(np.int64)
        indices = starts[:, None] + np.arange(length)
        if len(self._shards) == 1:
            found: NDArray[np.int32] = self._shards[0][indices].astype(np.int32)
            return found
        found = np.empty(indices.shape, np.int32)
        owner = np.searchsorted(self._ends, indices, side="right")
        for number in np.unique(owner):
            shard = self._shards[number]
            found[owner == number] = shard[indices[owner == number] - (self._ends[number] - len(shard))]
        return found


def open_split(
    manifest: Path, split: str, tokenizer_sha256: str | None = None, vocab_size: int | None = None
) -> Tokens:
    """Return the memory-mapped tokens of "train" or "validation". Every byte is read once and checked.

    tokenizer_sha256, vocab_size: of the tokenizer in use; None accepts any. Raises UserError, naming the file, the
    value and the expected one, if the shards belong to another tokenizer, if a shard is missing, truncated, altered or
    of another format, or if a token id is not in the vocabulary.
    """
    record = read_json(manifest, MANIFEST, REMEDY)
    if tokenizer_sha256 not in (None, record["tokenizer_sha256"]):
        raise UserError(
            f"{manifest}: the shards are of the tokenizer with sha256 {record['tokenizer_sha256']}, but the one in use "
            f"has {tokenizer_sha256}; use that tokenizer, or delete the shards and {REMEDY}"
        )
    entries, version = record["splits"][split], record["version"]
    if version not in TOKEN_TYPES or not entries or not all(SHARD_NAME.fullmatch(entry["file"]) for entry in entries):
        raise UserError(f"{manifest}: its {split} entries are not whole; delete it and {REMEDY}")
    shards = {(path := manifest.parent / entry["file"]): _open_shard(path, entry, version) for entry in entries}
    for path, tokens in shards.items():
        if vocab_size is not None:
            _check_ids(path, tokens, vocab_size)
    return Tokens(list(shards.values()))


def _check_ids(path: Path, tokens: np.ndarray, vocab_size: int) -> None:
    """Raise UserError at the first id outside of the vocabulary, because kernels use ids as indices of tables."""
    for first in range(0, len(tokens), BLOCK):
        block = tokens[first : first + BLOCK]
        if block.max() >= vocab_size:
            position = first + int((block >= vocab_size).argmax())
            raise UserError(
                f"{path}: token {position:,}: got the id {tokens[position]}, expected less than the vocabulary's "
                f"{vocab_size}; delete it and {REMEDY}"
            )


def _open_shard(path: Path, entry: ShardEntry, version: int) -> TokenArray:
    """Return the tokens (N,) of one shard, memory-mapped."""
    if not path.is_file():
        raise UserError(f"{path}: this shard is missing; {REMEDY}")
    with open(path, "rb") as file:
        header = np.frombuffer(file.read(HEADER_BYTES).ljust(HEADER_BYTES, b"\0"), HEADER)
    size, whole_size = path.stat().st_size, HEADER_BYTES + entry["tokens"] * TOKEN_TYPES[version].itemsize
    checks = (
        ("size in bytes", size, whole_size),
        ("magic number", int(header[0]), MAGIC),
        ("version", int(header[1]), version),
        ("number of tokens", int(header[2]), entry["tokens"]),
        ("sha256", sha256_of(path), entry["sha256"]),
    )
    for what, got, expected in checks:
        if got != expected:
            how = "truncated" if size < whole_size else "altered"
            raise UserError(f"{path}: {how}: the shard's {what} is {got}, expected {expected}; delete it and {REMEDY}")
    return np.memmap(path, TOKEN_TYPES[version], mode="r", offset=HEADER_BYTES).view(np.ndarray)
