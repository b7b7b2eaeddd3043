"""Print tokens in a form that people can read."""

from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from hipgpt.base.terminal import readable
from hipgpt.data.tokenizer.tokenizer import Tokenizer

BACKGROUNDS = (153, 223, 157, 217, 183)  # pale ones of the 256 colours; neighbours are easy to tell apart
RESET = "\033[0m"


def show_tokens(tokenizer: Tokenizer, ids: NDArray[np.uint32], stream: TextIO) -> None:
    """Write tokens to a terminal with coloured backgrounds, or to any other stream one per line, with their ids.

    A line end is shown as "⏎", and bytes that are not a whole character as "\\xNN".
    """
    pieces = [_shown(tokenizer.token_bytes(token)) for token in ids.tolist()]
    if not stream.isatty():
        for token, piece in zip(ids.tolist(), pieces, strict=True):
            stream.write(f"{token}\t{piece}\n")
        return
    for index, piece in enumerate(pieces):
        colour = f"\033[30;48;5;{BACKGROUNDS[index % len(BACKGROUNDS)]}m"
        # a colour must end with its line, otherwise the terminal paints the rest of the line
        stream.write(colour + piece.replace("⏎", f"⏎{RESET}\n{colour}") + RESET)
    size = len(tokenizer.decode(ids))
    stream.write(f"\n{len(ids)} tokens, {size} bytes, {size / max(len(ids), 1):.2f} bytes per token\n")


def _shown(token: bytes) -> str:
    text = readable(token).replace("\n", "⏎")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
