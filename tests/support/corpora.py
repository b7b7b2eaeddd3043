"""A corpus as the stage download leaves it, and its shards as tokenize and manifest do."""

from pathlib import Path

from hipgpt.data.shards import shard_names, write_manifest, write_shard
from hipgpt.data.split import ROW
from hipgpt.data.tokenizer.tokenizer import Tokenizer


def write_corpus(folder: Path, *documents: tuple[bytes, bytes]) -> Path:
    """Write a corpus of documents, each given as its training and validation part. Return its folder."""
    folder.mkdir(exist_ok=True)
    (folder / "provenance.json").write_text("{}")
    for name, side in (("train.txt", 0), ("validation.txt", 1)):
        (folder / name).write_bytes(b"".join(document[side] for document in documents))
    rows, train, validation = [], 0, 0
    for part, rest in documents:
        rows.append(ROW.pack(train, train + len(part), validation, validation + len(rest)))
        train, validation = train + len(part), validation + len(rest)
    (folder / "documents.bin").write_bytes(b"".join(rows))
    return folder


def write_shards(corpus: Path, tokenizer: Tokenizer, output: Path, train_shards: int, threads: int = 1) -> None:
    """Write all shards of a corpus and their manifest."""
    for name in sum(shard_names(train_shards).values(), []):
        write_shard(corpus, tokenizer, output / name, train_shards, threads)
    write_manifest(corpus, tokenizer, output, train_shards)
