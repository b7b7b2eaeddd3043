"""The known name that a mistyped one resembles."""

import difflib
from collections.abc import Iterable

from hipgpt.base.terminal import first_of

MOST_NAMES = 5  # in a message


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most like a name, or None if none is like it."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return close[0] if close else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: ", did you mean 'x'?", or "" if no known name is like it."""
    close = nearest(name, known)
    return f", did you mean {close!r}?" if close else ""


def names_like(name: str, known: Iterable[str]) -> str:
    """Return the known names that are most like a name, and the number of the others; "none" if there is none."""
    names = list(known)
    if len(names) > MOST_NAMES:
        names = difflib.get_close_matches(name, names, n=len(names), cutoff=0)
    return first_of(MOST_NAMES, names) or "none"
