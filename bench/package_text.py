"""Make a corpus of JSON lines from the documentation and the sources in Debian packages: a real text of a gigabyte.

    apt-get download rust-doc linux-doc-6.1 linux-source-6.1 ...      (anywhere)
    python bench/package_text.py --packages *.deb --out corpus.jsonl [--workers 2]

A document is a file: HTML without its tags, plain text, or source code. A line of more than 20 characters that a
package has in several HTML files is kept once, because navigation and licenses would otherwise fill the corpus. A text
that occurs again is dropped, and so is a file of which more than half are `#define`: the registers of a chip. The order
of documents is a pseudorandom one that follows from their texts.
"""

import argparse
import gzip
import hashlib
import html
import json
import multiprocessing
import os
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

HTML, PLAIN = (".html", ".page", ".xhtml"), (".txt", ".rst", ".pod", ".md", ".dz")
CODE = (".c", ".h", ".rs", ".py", ".S")
HIDDEN = re.compile(r"<(script|style|head|nav|svg|math)\b.*?</\1\s*>|<!--.*?-->", re.DOTALL | re.IGNORECASE)
BLOCK = re.compile(
    r"</?(?:p|div|h[1-6]|li|ul|ol|dl|dt|dd|tr|table|pre|section|article|br|hr|td|th)\b[^>]*>", re.IGNORECASE
)
TAG = re.compile(r"<[^>]*>")
BLANKS, LINES = re.compile(r"[ \t]+(?=\n)"), re.compile(r"\n{3,}")
SHORTEST, LONGEST = 400, 200_000  # characters of a document


def text_of_html(page: str, seen: set[int]) -> str:
    """Return the text of a page without the lines that `seen` has, and add its lines to `seen`."""
    text = html.unescape(TAG.sub("", BLOCK.sub("\n", HIDDEN.sub("", page))))
    kept = []
    for line in text.split("\n"):
        if len(line) > 20:
            key = hash(line.strip())
            if key in seen:
                continue
            seen.add(key)
        kept.append(line)
    return "\n".join(kept)


def documents(folder: Path) -> Iterator[str]:
    """Yield the texts of an unpacked package."""
    seen: set[int] = set()
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        if path.name.startswith("linux-source") and path.suffix == ".xz":
            with tarfile.open(path) as archive:
                for member in archive:
                    if member.isfile() and member.name.endswith(CODE + PLAIN):
                        yield archive.extractfile(member).read().decode("utf-8", "replace")
        elif path.suffix in HTML:
            yield text_of_html(path.read_text(encoding="utf-8", errors="replace"), seen)
        elif path.suffix == ".dz":
            yield gzip.decompress(path.read_bytes()).decode("utf-8", "replace")
        elif path.suffix in PLAIN:
            yield path.read_text(encoding="utf-8", errors="replace")


def of_package(package: Path, folder: Path) -> Path:
    """Write the documents of a package, a line each behind its order, and return the file."""
    out = folder / f"{package.name}.lines"
    with tempfile.TemporaryDirectory(dir=folder) as unpacked, open(out, "w", encoding="utf-8") as file:
        subprocess.run(["dpkg-deb", "--extract", package, unpacked], check=True)
        for text in documents(Path(unpacked)):
            text = LINES.sub("\n\n", BLANKS.sub("", text)).strip()
            for start in range(0, len(text), LONGEST):
                part = text[start : start + LONGEST]
                registers = part.count("#define") > part.count("\n") / 2
                if len(part) >= SHORTEST and "�" not in part and not registers:
                    file.write(f"{hashlib.sha256(part.encode()).hexdigest()} {json.dumps({'text': part})}\n")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.out.parent) as folder:
        largest_first = sorted(arguments.packages, key=lambda path: -path.stat().st_size)
        with multiprocessing.Pool(arguments.workers) as pool:
            parts = list(pool.imap_unordered(partial(of_package, folder=Path(folder)), largest_first))
        merged = Path(folder) / "sorted"
        command = ["sort", "--unique", "--key=1,1", "--buffer-size=2G", "--output", merged, *parts]
        subprocess.run(command, check=True, env=os.environ | {"LC_ALL": "C"})
        with open(merged, encoding="utf-8") as lines, open(arguments.out, "w", encoding="utf-8") as file:
            for line in lines:
                file.write(line.split(" ", 1)[1])


if __name__ == "__main__":
    main()
