"""The known name that a mistyped one resembles."""

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most like a name, or None if none is like it."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return close[0] if close else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: ", did you mean 'x'?", or "" if no known name is like it."""
    close = nearest(name, known)
    return f", did you mean {close!r}?" if close else ""
