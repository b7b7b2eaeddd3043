"""Where a text may be cut so that the tokens of its parts, one after the other, are the tokens of the whole.

Rule: before an ASCII white space byte, no line end, that follows no white space ("blank"); and behind a line end that
follows no white space, where a byte comes that begins none ("line"). Proof, for every pattern of pretokenize.py:
- No symbol spans the cut: beside it is an ASCII byte, which is a symbol of its own, whatever precedes it.
- No piece spans the cut. Blank: a piece is white space alone, or has after its first symbol none but line ends. Line: a
  piece goes on behind a line end with white space only.
- The left part falls into the same pieces without its sequel: the scanner looks past the end of a piece only to learn
  that a run ends there, or that non-white-space follows white space. Blank: the last piece ends with no white space,
  and its run ends at the end of the text as it does before a blank. Line: the last white space is one symbol, which
  is a piece, or the end of one, whatever follows. White space further left is followed by something in the part.
- The right part is scanned from the cut on in both cases, and the scanner never looks back.
- No special token spans the cut: <|endoftext|> holds no white space, and of others, `undivided`, no occurrence may.
  So those of the parts are those of the whole.

Text without such a place (a run of one letter, Chinese without a blank or a line end) stays in one part.
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
    behind_line = b"".join(b"(?<!(?:%b)[\r\n])" % group for group in by_length)
    return re.compile(
        b"(?=[ \t\v\f])%b|(?<=[\r\n])%b(?=[^%b])" % (before_blank, behind_line, re.escape(begins_white_space)),
        re.DOTALL,
    )


CUT = _cut_pattern()


def next_cut(text: bytes | bytearray | mmap.mmap, offset: int, undivided: Sequence[bytes] = ()) -> int:
    """Return the first place at or after offset where the text may be cut; its length if there is none.

    undivided: special tokens that hold white space. The beginning and the end are such places too. An mmap of a file is
    searched without reading the rest of it.
    """
    if offset <= 0:
        return 0
    for found in CUT.finditer(text, offset):
        cut = found.start()
        if all(text.find(one, max(0, cut - len(one) + 1), cut + len(one) - 1) < 0 for one in undivided):
            return cut
    return len(text)


def text_chunks(stream: BinaryIO, chunk_bytes: int) -> Iterator[bytes]:
    """Yield the stream's bytes in order, about chunk_bytes at a time, cut only where no token can span the cut.

    Memory: two chunks, or the longest stretch that has no place to cut where that is longer.
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
    """Yield the file's bytes in order as text_chunks does, uint8, without copying them: the file is mapped.

    undivided: as of next_cut. A chunk's memory is given back when the third one after it is asked for.
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
        if hasattr(mmap, "MADV_DONTNEED"):
            text.madvise(mmap.MADV_DONTNEED)  # or the process would seem to grow by the whole text
