"""Cuts of a text after which the tokens of the two parts, one after the other, are the tokens of the whole.

Rule. A text may be cut at two kinds of positions:
- "blank": before an ASCII white space byte that is not a line end and does not follow white space;
- "line": after a line end that does not follow white space, if the next byte does not begin white space.

Proof, for every pattern of pretokenize.py:
- No symbol spans the cut, because one of its neighbours is an ASCII byte, which is always a symbol of its own.
- No piece spans the cut. Blank: after its first symbol, a piece that is not white space alone can contain line ends but
  no other white space. Line: after a line end, a piece can continue with white space only.
- The left part has the same pieces without the right part, because the scanner looks past the end of a piece for two
  reasons only: to learn that a run ends there, or that non-white-space follows white space. Blank: the last piece does
  not end with white space, and its run ends at the end of the text as it does before a blank. Line: the last white
  space is one symbol, which is a piece or the end of one, whatever follows. Earlier white space is followed by text in
  the part itself.
- The right part has the same pieces, because the scanner starts at the cut in both cases and never looks back.
- No special token spans the cut. <|endoftext|> contains no white space; a cut inside an occurrence of a token that
  does (`undivided`) is skipped. So the special tokens of the parts are those of the whole.

Text without such a position, such as a run of one letter or Chinese without spaces and newlines, stays in one part.
"""

import mmap
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from hipgpt.data.tokenizer.pretokenize import WHITE_SPACE


def _cut_pattern() -> re.Pattern[bytes]:
    encoded = sorted((chr(code_point).encode() for code_point in WHITE_SPACE), key=len)
    by_length = [b"|".join(map(re.escape, group)) for _, group in groupby(encoded, key=len)]
    begins_white_space = b"".join(sorted({one[:1] for one in encoded}))
    before_blank = b"".join(b"(?<!%b)" % group for group in by_length)
    after_line = b"".join(b"(?<!(?:%b)[\r\n])" % group for group in by_length)
    return re.compile(
        b"(?=[ \t\v\f])%b|(?<=[\r\n])%b(?=[^%b])" % (before_blank, after_line, re.escape(begins_white_space)),
        re.DOTALL,
    )


CUT = _cut_pattern()


def next_cut(text: bytes | bytearray | mmap.mmap, offset: int, undivided: Sequence[bytes] = ()) -> int:
    """Return the first position at or after offset where the text may be cut; its length if there is none.

    undivided: special tokens that contain white space. The text may also be cut at its beginning and its end. An mmap
    is read up to the cut only.
    """
    if offset <= 0:
        return 0
    for found in CUT.finditer(text, offset):
        cut = found.start()
        if all(text.find(one, max(0, cut - len(one) + 1), cut + len(one) - 1) < 0 for one in undivided):
            return cut
    return len(text)


def text_chunks(stream: BinaryIO, chunk_bytes: int) -> Iterator[bytes]:
    """Yield the bytes of a stream in chunks of about chunk_bytes, cut only where no token can span the cut.

    Memory: two chunks, or the longest stretch that has no position for a cut, if that is longer.
    """
    pending = bytearray(stream.read(chunk_bytes))
    while block := stream.read(chunk_bytes):
        seam = len(pending)
        pending += block
        cut = next_cut(pending, seam)
        if cut < len(pending):
            yield bytes(pending[:cut])
            del pending[:cut]
    if pending:
        yield bytes(pending)


def file_chunks(path: Path, chunk_bytes: int, undivided: Sequence[bytes] = ()) -> Iterator[NDArray[np.uint8]]:
    """Yield the bytes of a file as text_chunks does, as uint8 arrays. They are not copied: the file is memory-mapped.

    undivided: as in next_cut.
    """
    if path.stat().st_size == 0:
        return
    with open(path, "rb") as file:
        text = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    whole = np.frombuffer(text, np.uint8)
    begin = 0
    while begin < len(text):
        end = next_cut(text, begin + chunk_bytes, undivided)
        yield whole[begin:end]
        begin = end
        forget(text)


def forget(text: mmap.mmap) -> None:
    """Give the pages of a mapped file back, because the process would otherwise seem to grow by the whole text."""
    if hasattr(mmap, "MADV_DONTNEED"):
        text.madvise(mmap.MADV_DONTNEED)
