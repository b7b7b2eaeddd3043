"""Peak memory and time of the stages from files to token shards, for corpora of several sizes.

python bench/corpus.py --text train.txt --megabytes 100 400 1000 [--format jsonl] [--threads 2]

The corpus is made of a real text: its paragraphs, two kilobytes or more together, are the documents. Each document gets
a number of its own, so that none is the copy of another. The stages run as the workflow runs them, each as a process.
"""

import argparse
import functools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[1] / "workflow" / "scripts"
DOCUMENT_BYTES, VOCABULARY, SHARDS = 2000, 8000, 4


def documents(text: Path, size: int) -> Iterator[str]:
    """Yield documents of `size` bytes together."""
    paragraphs = text.read_text(encoding="utf-8").split("\n\n")
    number = done = 0
    while True:
        held = ""
        for paragraph in paragraphs:
            held += paragraph + "\n\n"
            if len(held) >= DOCUMENT_BYTES:
                document = f"Document {number}\n\n{held}"
                number, done, held = number + 1, done + len(document), ""
                yield document
                if done >= size:
                    return


def write(path: Path, text: Path, size: int) -> None:
    texts = documents(text, size)
    if path.suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        with parquet.ParquetWriter(path, pyarrow.schema([("text", pyarrow.string())])) as file:
            group: list[str] = []
            for one in texts:
                group.append(one)
                if len(group) == 10_000:
                    file.write_table(pyarrow.table({"text": group}))
                    group = []
            file.write_table(pyarrow.table({"text": group}))
    else:
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(json.dumps({"text": one}) + "\n" for one in texts)


def in_child(function: Callable[[], None]) -> None:
    """Run a function in a process of its own, so that its memory does not count for the next one."""
    child = os.fork()
    if child == 0:
        function()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def measured(script: str, *arguments: object) -> tuple[float, float]:
    """Return the peak resident memory in MB and the seconds of one script."""

    def run() -> None:
        subprocess.run([sys.executable, SCRIPTS / script, *map(str, arguments)], stderr=subprocess.DEVNULL, check=True)
        Path("peak").write_text(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss), encoding="utf-8")

    begin = time.monotonic()
    in_child(run)
    return int(Path("peak").read_text(encoding="utf-8")) / 1024, time.monotonic() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", required=True, type=Path)
    parser.add_argument("--megabytes", required=True, type=int, nargs="+")
    parser.add_argument("--format", default="jsonl", choices=("jsonl", "parquet"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where the files are written (default: a temporary folder)")
    arguments = parser.parse_args()
    text = arguments.text.resolve()
    for megabytes in arguments.megabytes:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            os.chdir(folder)
            file = Path(f"corpus.{arguments.format}")
            in_child(functools.partial(write, file, text, megabytes * 10**6))
            corpus = {"kind": "file", "path": str(file), "cleaning": [], "validation_fraction": 0.01, "split": "hash"}
            threads, shards = ("--threads", arguments.threads), ("--train-shards", SHARDS)
            tokenizer = json.dumps({"vocab_size": VOCABULARY})
            made = ("--corpus", "c", "--tokenizer", "c/tokenizer.json")
            stages = {
                "download": ("--name", "c", "--settings", json.dumps(corpus), "--output", "c"),
                "train_tokenizer": ("--text", "c/train.txt", "--settings", tokenizer, "--output", "c", *threads),
                "tokenize_corpus": (*made, "--output", "c/train_00000.bin", *shards, *threads),
            }
            for stage, options in stages.items():
                peak, seconds = measured(f"{stage}.py", *options)
                print(f"{megabytes} MB of {arguments.format}, {stage}: peak {peak:.0f} MB, {seconds:.1f} s", flush=True)
            os.chdir("/")


if __name__ == "__main__":
    main()
