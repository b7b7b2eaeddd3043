"""Text of files and models on a terminal: shown, never obeyed."""

import re
import shutil
import sys
from collections.abc import Sequence

UNLIMITED = 100_000  # columns of a file or a pipe
ERASE_LINE = "\r\x1b[K"
# control characters except tab and newline, line separators, marks that reverse the direction of text, lone surrogates
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def columns_of_stdout() -> int:
    """Return how many characters a line of stdout may have."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else UNLIMITED


def first_of(most: int, names: Sequence[str]) -> str:
    """Return the first names, and the number of the others."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def one_line(text: str, most_characters: int) -> str:
    """Return the text printable, with line ends and tabs as escapes too, and shortened in the middle."""
    line = printable(text).replace("\n", "\\n").replace("\t", "\\t")
    if len(line) <= most_characters:
        return line
    end = most_characters // 4
    return f"{line[: most_characters - end - 5]} ... {line[-end:]}"


def readable(token: bytes) -> str:
    """Return the text of a token. Bytes that are not a whole character are "\\xNN"."""
    return token.decode("utf-8", "backslashreplace")


def printable(text: str) -> str:
    """Return the text with every character that a terminal would obey as an escape, as in \\x1b."""
    return OBEYED.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
