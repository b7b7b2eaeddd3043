r"""GPT-2's pre-tokenization: a text falls into pieces, and no token ever spans two of them.

Definition: the pieces are the successive matches of

    's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+

where the first alternative that matches wins. Read as a scanner over four classes of symbols: a contraction; else an
optional space and a run of one class that is not white space; else a run of white space, without its last symbol if it
has several and something follows it.

Example: "I'll  say 42!\n" -> "I" "'ll" " " " say" " 42" "!" "\n"

Every byte string is a text: a byte that belongs to no well-formed UTF-8 sequence is a symbol of class OTHER by itself.
The literal <|endoftext|> is cut out first, so the text before it ends there, as far as `(?!\S)` can see.

Radford et al. 2019, "Language Models are Unsupervised Multitask Learners" (encoder.py).
"""

import functools
import unicodedata
from collections.abc import Iterator

END_OF_TEXT = "<|endoftext|>"
CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")
OTHER, LETTER, NUMBER, SPACE = range(4)

# \s is Unicode's White_Space property, which unicodedata lacks; str.isspace would add U+001C..U+001F.
WHITE_SPACE = (*range(0x09, 0x0E), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B))
WHITE_SPACE += (0x2028, 0x2029, 0x202F, 0x205F, 0x3000)
CLASS_TABLE_SIZE = 0x40000  # no letter, number or white space lies above U+3FFFF


@functools.cache
def class_table() -> bytes:
    """Return the class of each code point below CLASS_TABLE_SIZE, one byte each; about 30 ms, once a process.

    \\p{L} and \\p{N} are this Python's unicodedata (Unicode 13 in Python 3.10, 15.1 in 3.13): only characters that a
    Unicode version had not assigned yet are OTHER in one Python and LETTER or NUMBER in another.
    """
    major = "".join(map(unicodedata.category, map(chr, range(CLASS_TABLE_SIZE))))[::2].encode()
    table = bytearray(major.translate(bytes({ord("L"): LETTER, ord("N"): NUMBER}.get(i, OTHER) for i in range(256))))
    for code_point in WHITE_SPACE:
        table[code_point] = SPACE
    return bytes(table)


def symbol_class(symbol: str) -> int:
    """Return OTHER, LETTER, NUMBER or SPACE."""
    return class_table()[ord(symbol)] if ord(symbol) < CLASS_TABLE_SIZE else OTHER


def run_end(text: str, start: int, wanted: int) -> int:
    """Return where the run of symbols of the wanted class that begins at start ends."""
    end = start
    while end < len(text) and symbol_class(text[end]) == wanted:
        end += 1
    return end


def piece_end(text: str, start: int) -> int:
    """Return where the piece that begins at start ends."""
    for contraction in CONTRACTIONS:
        if text.startswith(contraction, start):
            return start + len(contraction)
    after_space = start + 1 if text[start] == " " and start + 1 < len(text) else start
    first = symbol_class(text[after_space])
    if first != SPACE:
        return run_end(text, after_space, first)
    end = run_end(text, start, SPACE)
    return end - 1 if end < len(text) and end - start > 1 else end


def split_pieces(text: bytes) -> Iterator[bytes]:
    """Yield the pieces of a text without END_OF_TEXT; joined, they are the text."""
    # surrogateescape makes each stray byte one lone surrogate: a symbol that is no letter, number or white space.
    symbols = text.decode("utf-8", "surrogateescape")
    start = 0
    while start < len(symbols):
        end = piece_end(symbols, start)
        yield symbols[start:end].encode("utf-8", "surrogateescape")
        start = end
