r"""Pre-tokenization: a text is split into pieces, and no token spans two of them.

Definition: the pieces are the successive matches of a pattern, in which the first matching alternative wins:

    gpt2    's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
    cl100k  (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*
            |\s*[\r\n]+|\s+(?!\S)|\s+
    qwen2   cl100k with \p{N} instead of \p{N}{1,3}
    smollm  's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?=\p{N})|\s+(?!\S)|\s+

gpt2 as a scanner over four classes of symbols takes the first of these that is possible: a contraction; an optional
space and a run of one class that is not white space; a run of white space, without its last symbol if the run has
several symbols and something follows it.

Example: "I'll  say 42!\n" -> "I" "'ll" " " " say" " 42" "!" "\n"

Every byte string is a text: a byte that does not belong to well-formed UTF-8 is a symbol of its own, of class OTHER.
Special tokens such as <|endoftext|> are cut out first, so for `(?!\S)` the text ends before each of them.

Radford et al. 2019, "Language Models are Unsupervised Multitask Learners" (encoder.py); cl100k and its relatives: the
tokenizers of GPT-4, Llama 3 and Qwen 2; smollm: that of SmolLM2, which is gpt2 on what is left between single digits.
"""

import functools
import re
import unicodedata
from collections.abc import Iterator

import numpy as np

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
    "smollm": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?=\p{N})|\s+(?!\S)|\s+",
}
MOST_DIGITS = {"cl100k": 3, "qwen2": 1}  # in a piece of a pattern of cl100k's kind
OTHER, LETTER, NUMBER, SPACE = range(4)

# \s is Unicode's White_Space property, which unicodedata lacks; str.isspace would add U+001C..U+001F.
WHITE_SPACE = (*range(0x09, 0x0E), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B))
WHITE_SPACE += (0x2028, 0x2029, 0x202F, 0x205F, 0x3000)
# 0x40000, because there is no letter, number or white space above U+3FFFF
CLASS_TABLE_SIZE = kernel_constants(KERNELS / "bpe" / "limits.h")["CLASS_TABLE_SIZE"]


@functools.cache
def class_table() -> bytes:
    """Return the class of each code point below CLASS_TABLE_SIZE, one byte each. Takes about 7 ms, once per process.

    \\p{L} and \\p{N} come from Python's Unicode tables (Unicode 14 in Python 3.11, 15.1 in 3.13). Two Python versions
    differ only in characters that the older Unicode version had not assigned yet: these are OTHER there.
    """
    code_points = np.arange(CLASS_TABLE_SIZE, dtype="<u4")
    symbols = code_points.tobytes().decode("utf-32-le", "surrogatepass")
    table = bytearray([OTHER]) * CLASS_TABLE_SIZE
    for run in re.finditer(r"[^\W_]+", symbols):  # runs of letters and numbers, because category() takes 0.1 us each
        begin, end = run.span()
        if run.group().isalpha():
            table[begin:end] = bytes([LETTER]) * (end - begin)
        else:
            major = "".join(map(unicodedata.category, run.group()))[::2]
            table[begin:end] = [{"L": LETTER, "N": NUMBER}.get(kind, OTHER) for kind in major]
    for code_point in WHITE_SPACE:
        table[code_point] = SPACE
    return bytes(table)


def symbol_class(symbol: str) -> int:
    """Return OTHER, LETTER, NUMBER or SPACE."""
    return class_table()[ord(symbol)] if ord(symbol) < CLASS_TABLE_SIZE else OTHER


def run_end(text: str, start: int, kind: int) -> int:
    """Return the end of the run of symbols of the class `kind` that begins at start."""
    end = start
    while end < len(text) and symbol_class(text[end]) == kind:
        end += 1
    return end


def white_space_end(text: str, start: int, end: int) -> int:
    r"""Return the end of the match of \s+(?!\S)|\s+ in the white space text[start:end]."""
    return end - 1 if end < len(text) and end - start > 1 else end


def gpt2_piece_end(text: str, start: int, digits_alone: bool) -> int:
    """Return the end of the piece that begins at start. digits_alone: as in smollm."""
    if contraction := CONTRACTIONS.match(text, start):
        return contraction.end()
    if digits_alone and symbol_class(text[start]) == NUMBER:
        return start + 1
    after_space = start + 1 if text[start] == " " and start + 1 < len(text) else start
    first = symbol_class(text[after_space])
    if first != SPACE and not (digits_alone and first == NUMBER):
        return run_end(text, after_space, first)
    end = run_end(text, start, SPACE)
    before_digit = digits_alone and end < len(text) and symbol_class(text[end]) == NUMBER
    return end if before_digit else white_space_end(text, start, end)


def cl100k_piece_end(text: str, start: int, digits: int) -> int:
    """Return the end of the piece that begins at start. digits: how many numbers a piece may have."""
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
    """Yield the pieces of a text without special tokens. Joined, they give the text."""
    # surrogateescape turns each stray byte into one lone surrogate, which is not a letter, number or white space.
    symbols = text.decode("utf-8", "surrogateescape")
    start = 0
    while start < len(symbols):
        if pattern in MOST_DIGITS:
            end = cl100k_piece_end(symbols, start, MOST_DIGITS[pattern])
        else:
            end = gpt2_piece_end(symbols, start, digits_alone=pattern == "smollm")
        yield symbols[start:end].encode("utf-8", "surrogateescape")
        start = end
