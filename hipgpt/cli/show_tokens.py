"""Tokens for people to look at."""

from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from hipgpt.data.tokenizer.tokenizer import Tokenizer

BACKGROUNDS = (153, 223, 157, 217, 183)  # of the 256 colours: pale ones, neighbours easy to tell apart
RESET = "\033[0m"


def show_tokens(tokenizer: Tokenizer, ids: NDArray[np.uint32], stream: TextIO) -> None:
    """Write the tokens: on a terminal each on a background of its own, elsewhere one a line with its id.

    The end of a line shows as "⏎", and bytes that are no whole character as "\\xNN".
    """
    pieces = [_shown(tokenizer.token_bytes(token)) for token in ids.tolist()]
    if not stream.isatty():
        for token, piece in zip(ids.tolist(), pieces, strict=True):
            stream.write(f"{token}\t{piece}\n")
        return
    for index, piece in enumerate(pieces):
        colour = f"\033[30;48;5;{BACKGROUNDS[index % len(BACKGROUNDS)]}m"
        # a line's colour must end with it, or the terminal paints the rest
        stream.write(colour + piece.replace("⏎", f"⏎{RESET}\n{colour}") + RESET)
    size = len(tokenizer.decode(ids))
    stream.write(f"\n{len(ids)} tokens, {size} bytes, {size / max(len(ids), 1):.2f} bytes per token\n")


def _shown(token: bytes) -> str:
    text = token.decode("utf-8", "backslashreplace").replace("\n", "⏎")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
