"""The split of a corpus into train.txt and validation.txt, and documents.bin, which says where each document is.

A document of plain text is divided: its end becomes validation text. A record of JSON lines or Parquet is too short for
that, so it goes to one side as a whole. With `split: hash` a whole document of any format goes to the side that the
SHA-256 of its text decides. So neither the order of the files nor a new file moves a document, and equal documents are
on one side.

Row i of documents.bin belongs to document i. It has four uint64, little-endian: where the training part begins and ends
in train.txt, and where the validation part begins and ends in validation.txt. In both files a record is followed by a
line end that belongs to no document, so that no word reaches from one record into the next.
"""

import hashlib
import shutil
import struct
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from hipgpt.base.errors import UserError
from hipgpt.base.files import BLOCK

FILES = ("train.txt", "validation.txt", "documents.bin")
ROW = struct.Struct("<4Q")
HASHES = 1 << 64


class SplitText:
    """The three files of a corpus while they are written."""

    def __init__(self, files: Sequence[BinaryIO], validation_fraction: float, by_hash: bool) -> None:
        """files: those of FILES, empty, readable and writable; by_hash: whether hashes decide the sides."""
        self._train, self._validation, self._documents = files
        self._fraction, self._by_hash = validation_fraction, by_hash
        self._sizes = [0, 0]  # bytes of train and validation
        self._records = 0

    def add_text(self, blocks: Iterator[bytes]) -> dict[str, str | int]:
        """Append a document of plain text. Return its sha256, its bytes and the bytes of its training part."""
        train, validation = self._train, self._validation
        begin, digest = self._sizes[0], hashlib.sha256()
        for block in blocks:
            digest.update(block)
            train.write(block)
        size = train.tell() - begin
        if self._by_hash:
            split_at = 0 if self._is_validation(digest.digest()) else size
        else:
            split_at = split_position(train, begin, size, self._fraction)
        train.seek(begin + split_at)
        shutil.copyfileobj(train, validation, BLOCK)
        train.seek(begin + split_at)
        train.truncate()
        self._add_row(split_at, size - split_at)
        return {"sha256": digest.hexdigest(), "text_bytes": size, "split_at": split_at}

    def add_record(self, text: bytes) -> bool:
        """Append the text of a record. Return whether it became validation text.

        Without hashes, records are taken in turn: with a validation_fraction of 0.1, every tenth one validates.
        """
        if self._by_hash:
            validates = self._is_validation(hashlib.sha256(text).digest())
        else:
            validates = int((self._records + 1) * self._fraction) > int(self._records * self._fraction)
        self._records += 1
        file = self._validation if validates else self._train
        file.write(text)
        file.write(b"\n")
        self._add_row(*((0, len(text)) if validates else (len(text), 0)))
        self._sizes[validates] += 1
        return validates

    def check(self) -> None:
        """Raise UserError if a side has no text."""
        for split, size in zip(("training", "validation"), self._sizes, strict=True):
            if size == 0:
                raise UserError(
                    f"its {sum(self._sizes)} bytes leave the {split} split empty at validation_fraction: "
                    f"{self._fraction}; give it more text or another fraction"
                )

    def _is_validation(self, sha256: bytes) -> bool:
        return int.from_bytes(sha256[:8], "big") < self._fraction * HASHES

    def _add_row(self, train: int, validation: int) -> None:
        ends = self._sizes[0] + train, self._sizes[1] + validation
        self._documents.write(ROW.pack(self._sizes[0], ends[0], self._sizes[1], ends[1]))
        self._sizes = [*ends]


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
