"""How many tokens a tokenizer's file has, for a config that does not state it."""

import functools
import json
from collections.abc import Mapping
from pathlib import Path

from hipgpt.base.errors import UserError
from hipgpt.base.files import check_regular

RANKS = ".tiktoken"


def tokens_of(path: Path) -> int:
    """Return the number of ids of a tokenizer.json of Hugging Face, or of tiktoken's ranks with <|endoftext|>.

    Only the ids are read. Raises UserError if it is neither; the stage that takes the file over checks the rest.
    """
    try:
        check_regular(path)
        return _tokens_of(path, path.stat().st_mtime_ns)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a tokenizer.json of Hugging Face with byte-level BPE") from error


@functools.cache
def _tokens_of(path: Path, changed: int) -> int:
    """Return the same for a file that was last changed at that time: all runs of a sweep may name it."""
    content = path.read_bytes()
    if path.suffix == RANKS:
        return len(content.splitlines()) + 1
    document = json.loads(content)
    ids = [*document["model"]["vocab"].values(), *(token["id"] for token in document["added_tokens"])]
    return int(max(ids)) + 1


def states_no_size(tokenizer: object) -> bool:
    """Return whether a section `tokenizer` names a tokenizer and not its size."""
    return isinstance(tokenizer, Mapping) and "from" in tokenizer and "vocab_size" not in tokenizer
