"""Cleaning steps of a document: streams of blocks in, streams of blocks out. A step holds at most 64 KiB of text."""

import itertools
import re
from collections.abc import Callable, Iterator

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
