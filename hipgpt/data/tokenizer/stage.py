"""The stage train_tokenizer: it makes tokenizer.json from the text of a corpus, and two tables about its merges.

merges.csv has a row for each merge: its rank; left, right and the joined token in Python's notation for bytes; the
count of the pair when it was chosen; and the number of tokens that it saved. compression.csv has the bytes per token of
the training text for vocabularies of 256, 512, ... tokens and for the whole one. One training gives all of these,
because a merge that is applied n times makes the text n tokens shorter.
"""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from hipgpt.base.csv_file import write_csv
from hipgpt.base.errors import UserError
from hipgpt.base.log import LOG
from hipgpt.base.paths import HUB
from hipgpt.data.hub import fetch_from_hub
from hipgpt.data.tokenizer.chunks import file_chunks
from hipgpt.data.tokenizer.native import native_library
from hipgpt.data.tokenizer.reference import BYTES, spell_merges
from hipgpt.data.tokenizer.tokenizer import Tokenizer, train_merges

CHUNK_BYTES = 1 << 20
BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left"
FILE = "tokenizer.json"
MERGES_HEADER = ("rank", "left", "right", "piece", "pair_count", "tokens_saved")
COMPRESSION_HEADER = ("vocab_size", "tokens", "bytes_per_token")


def make_tokenizer(settings: Mapping[str, Any], text: Path, output: Path, downloads: Path, threads: int) -> None:
    """Write the stage's files into the folder output.

    settings: the `tokenizer` section of config.yaml; downloads: folder that keeps downloaded files. An existing
    tokenizer with fewer tokens than the section says is padded. Raises UserError if the text is too short for that many
    tokens, or if an existing tokenizer cannot be fetched or read or has more tokens than the section says.
    """
    if "from" in settings:
        _adopt(existing_tokenizer(_fetched(settings["from"], downloads), settings), settings, text, output, threads)
    else:
        _train(text, settings["vocab_size"], settings.get("pattern", "gpt2"), output, threads)


def existing_tokenizer(path: Path, settings: Mapping[str, Any]) -> Tokenizer:
    """Return the tokenizer of a file that the `tokenizer` section names.

    Raises UserError if it cannot be read, or if it has more tokens than the section says.
    """
    tokenizer, vocab_size = Tokenizer.load(path, settings.get("pattern")), settings["vocab_size"]
    if tokenizer.vocab_size > vocab_size:
        raise UserError(
            f"{settings['from']}: has {tokenizer.vocab_size} tokens, but tokenizer.vocab_size is {vocab_size}; "
            f"set tokenizer.vocab_size: {tokenizer.vocab_size}"
        )
    return tokenizer


def _fetched(source: str, downloads: Path) -> Path:
    """Return the file that tokenizer.from names: a path, or tokenizer.json of "hub:OWNER/NAME" or "...@REVISION"."""
    if not source.startswith(HUB):
        return Path(source)
    repository, _, revision = source.removeprefix(HUB).partition("@")
    folder = downloads / f"tokenizer-{repository.replace('/', '-')}"
    commit, paths = fetch_from_hub(repository, revision or "main", [FILE], folder, "model")
    LOG.info("%s: the commit is %s", source, commit)
    return paths[FILE]


def _train(text: Path, vocab_size: int, pattern: str, output: Path, threads: int) -> None:
    size = text.stat().st_size
    native_library()  # the time to compile it tells nothing about the time that is left
    # disable: None shows it on a terminal only
    with tqdm(total=1, desc="tokenizer", bar_format=BAR, dynamic_ncols=True, disable=None, leave=False) as bar:

        def advance(stage: str, done: int) -> None:
            # counting words is about a third of the work, merging the rest
            share = done * CHUNK_BYTES / max(size, 1) / 3 if stage == "chunks" else done / max(vocab_size, 1) * 2 / 3
            bar.update(min(share, 1 - bar.n))

        merges = train_merges(file_chunks(text, CHUNK_BYTES), vocab_size, pattern, threads, advance)
    tokenizer = Tokenizer(tuple(map(tuple, merges["pair"].tolist())), pattern)
    tokenizer.save(output / "tokenizer.json")
    write_csv(output / "merges.csv", MERGES_HEADER, _merge_rows(merges))
    write_csv(output / "compression.csv", COMPRESSION_HEADER, _compression_rows(merges, size))


def _adopt(tokenizer: Tokenizer, settings: Mapping[str, Any], text: Path, output: Path, threads: int) -> None:
    """Write the stage's files for an existing tokenizer. Its merges have no counts, and one compression is known."""
    vocab_size = settings["vocab_size"]
    if tokenizer.vocab_size < vocab_size:
        tqdm.write(f"{settings['from']}: {tokenizer.vocab_size} tokens, padded to {vocab_size}", file=sys.stderr)
        tokenizer = tokenizer.padded(vocab_size)
    tokenizer.save(output / "tokenizer.json")
    names = spell_merges(tokenizer.merges)
    rows = ((rank, names[a], names[b], names[BYTES + rank], "", "") for rank, (a, b) in enumerate(tokenizer.merges))
    write_csv(output / "merges.csv", MERGES_HEADER, rows)
    size = text.stat().st_size
    chunks = file_chunks(text, CHUNK_BYTES, tokenizer.undivided)
    tokens = sum(map(len, tokenizer.encode_all(chunks, threads)))
    write_csv(output / "compression.csv", COMPRESSION_HEADER, [(vocab_size, tokens, f"{size / max(tokens, 1):.4f}")])


def _merge_rows(merges: NDArray[np.void]) -> Iterable[tuple[int, bytes, bytes, bytes, int, int]]:
    names = spell_merges(merges["pair"].tolist())
    for rank, ((left, right), count, saved) in enumerate(merges.tolist()):
        yield rank, names[left], names[right], names[BYTES + rank], count, saved


def _compression_rows(merges: NDArray[np.void], size: int) -> Iterable[tuple[int, int, str]]:
    """Yield the rows for 256, 512, ... tokens, then one for the whole vocabulary, which includes <|endoftext|>."""
    tokens_left = size - np.concatenate([[0], np.cumsum(merges["applied"])])
    doublings = [BYTES << i for i in range(32) if BYTES << i <= BYTES + len(merges)]
    sizes = [(vocab_size, vocab_size - BYTES) for vocab_size in doublings] + [(BYTES + len(merges) + 1, len(merges))]
    for vocab_size, used in sizes:
        yield vocab_size, int(tokens_left[used]), f"{size / max(tokens_left[used], 1):.4f}"
