"""How many tokens a tokenizer's file has, for a config that does not state it."""

import functools
import json
from collections.abc import Mapping
from pathlib import Path

from hipgpt.base.errors import UserError
from hipgpt.base.files import check_regular
from hipgpt.base.json_files import MOST_BYTES

RANKS = ".tiktoken"


def tokens_of(path: Path) -> int:
    """Return the number of ids of a tokenizer.json of Hugging Face, or of tiktoken's ranks with <|endoftext|>.

    Only the ids are read. Raises UserError if it is neither; the stage that takes the file over checks the rest.
    """
    try:
        check_regular(path)
        found = path.stat()
        if found.st_size > MOST_BYTES:
            raise UserError(f"{path}: got {found.st_size:,} bytes, expected at most {MOST_BYTES:,}; it is no tokenizer")
        return _tokens_of(path, found.st_mtime_ns)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a tokenizer.json of Hugging Face with byte-level BPE") from error


@functools.cache
def _tokens_of(path: Path, changed: int) -> int:
    """Return the same for a file that was last changed at that time: all runs of a sweep may name it."""
    content = path.read_bytes()
    if path.suffix == RANKS:
        return max(int(line.split()[1]) for line in content.splitlines()) + 2
    document = json.loads(content)
    ids = [*document["model"]["vocab"].values(), *(token["id"] for token in document.get("added_tokens", []))]
    return int(max(ids)) + 1


def states_no_size(tokenizer: object) -> bool:
    """Return whether a section `tokenizer` names a tokenizer and not its size."""
    return isinstance(tokenizer, Mapping) and "from" in tokenizer and "vocab_size" not in tokenizer
