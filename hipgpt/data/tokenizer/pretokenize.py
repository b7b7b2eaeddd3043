r"""Pre-tokenization: a text falls into pieces, and no token ever spans two of them.

Definition: the pieces are the successive matches of a pattern, in which the first alternative that matches wins:

    gpt2    's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
    cl100k  (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*
            |\s*[\r\n]+|\s+(?!\S)|\s+
    qwen2   as cl100k, with \p{N} in the place of \p{N}{1,3}

Read as a scanner over four classes of symbols, gpt2 is: a contraction; else an optional space and a run of one class
that is not white space; else a run of white space, without its last symbol if it has several and something follows it.

Example: "I'll  say 42!\n" -> "I" "'ll" " " " say" " 42" "!" "\n"

Every byte string is a text: a byte that belongs to no well-formed UTF-8 sequence is a symbol of class OTHER by itself.
Special tokens such as <|endoftext|> are cut out first, so the text before one ends there, as far as `(?!\S)` can see.

Radford et al. 2019, "Language Models are Unsupervised Multitask Learners" (encoder.py); cl100k and its relatives: the
tokenizers of GPT-4, Llama 3 and Qwen 2.
"""

import functools
import re
import unicodedata
from collections.abc import Iterator

from hipgpt.base.kernel_constants import kernel_constants
from hipgpt.base.paths import KERNELS

END_OF_TEXT = "<|endoftext|>"
CONTRACTIONS = re.compile("'(?:[stmd]|re|ve|ll)")
CONTRACTIONS_OF_ANY_CASE = re.compile("'(?:[stmdSTMD\u017f]|[rRvV][eE]|[lL][lL])")  # U+017F is an s of another shape
_CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PATTERNS = {
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "cl100k": _CL100K,
    "qwen2": _CL100K.replace(r"\p{N}{1,3}", r"\p{N}"),
}
OTHER, LETTER, NUMBER, SPACE = range(4)

# \s is Unicode's White_Space property, which unicodedata lacks; str.isspace would add U+001C..U+001F.
WHITE_SPACE = (*range(0x09, 0x0E), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B))
WHITE_SPACE += (0x2028, 0x2029, 0x202F, 0x205F, 0x3000)
# 0x40000, because there is no letter, number or white space above U+3FFFF
CLASS_TABLE_SIZE = kernel_constants(KERNELS / "bpe" / "limits.h")["CLASS_TABLE_SIZE"]


def most_digits(pattern: str) -> int:
    """Return how many numbers a piece may have in a pattern of cl100k's style; 0 for gpt2, which is of another."""
    return {"gpt2": 0, "cl100k": 3, "qwen2": 1}[pattern]


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


def white_space_end(text: str, start: int, end: int) -> int:
    r"""Return where the match of \s+(?!\S)|\s+ ends in the white space text[start:end]."""
    return end - 1 if end < len(text) and end - start > 1 else end


def gpt2_piece_end(text: str, start: int) -> int:
    """Return where the piece that begins at start ends."""
    if contraction := CONTRACTIONS.match(text, start):
        return contraction.end()
    after_space = start + 1 if text[start] == " " and start + 1 < len(text) else start
    first = symbol_class(text[after_space])
    if first != SPACE:
        return run_end(text, after_space, first)
    return white_space_end(text, start, run_end(text, start, SPACE))


def cl100k_piece_end(text: str, start: int, digits: int) -> int:
    """Return where the piece that begins at start ends; digits: how many numbers a piece may have."""
    if contraction := CONTRACTIONS_OF_ANY_CASE.match(text, start):
        return contraction.end()
    first = symbol_class(text[start])
    if first == NUMBER:
        return min(run_end(text, start, NUMBER), start + digits)
    after_one = start if first == LETTER or text[start] in "\r\n" else start + 1
    if (end := run_end(text, after_one, LETTER)) > after_one:
        return end
    after_space = start + (text[start] == " ")
    if (end := run_end(text, after_space, OTHER)) > after_space:
        while end < len(text) and text[end] in "\r\n":
            end += 1
        return end
    end = run_end(text, start, SPACE)
    newlines_end = start + len(text[start:end].rstrip("".join(map(chr, {*WHITE_SPACE} - {0x0A, 0x0D}))))
    return newlines_end if newlines_end > start else white_space_end(text, start, end)


def split_pieces(text: bytes, pattern: str = "gpt2") -> Iterator[bytes]:
    """Yield the pieces of a text without special tokens; joined, they are the text."""
    # surrogateescape makes each stray byte one lone surrogate: a symbol that is no letter, number or white space.
    symbols = text.decode("utf-8", "surrogateescape")
    digits = most_digits(pattern)
    start = 0
    while start < len(symbols):
        end = cl100k_piece_end(symbols, start, digits) if digits else gpt2_piece_end(symbols, start)
        yield symbols[start:end].encode("utf-8", "surrogateescape")
        start = end
