"""Make varied text for timing the tokenizer: prose, manuals, source code and tables in ten languages.

    python bench/varied_text.py --output varied.txt --megabytes 100

Downloads the documentation packages of Debian 12 that are named below (`apt-get download`, which needs no root),
unpacks them with dpkg-deb, and joins their texts: HTML without its tags, all other UTF-8 files whole. The files are
sorted by the SHA-256 of their names, so kinds and languages alternate, and a text of fewer megabytes is the beginning
of a longer one. If the packages have less text than requested, the text is shorter and a message says so. The text
belongs to its authors and is not part of the project.
"""

import argparse
import gzip
import hashlib
import html
import re
import subprocess
from pathlib import Path

PACKAGES = [
    "debian-handbook",
    "debian-reference-de",
    "debian-reference-fr",
    "debian-reference-ja",
    "debian-reference-zh-cn",
    "developers-reference-ru",
    "manpages",
    "manpages-dev",
    "manpages-de",
    "manpages-fr",
    "manpages-es",
    "manpages-ja",
    "manpages-ru",
    "manpages-pl",
    "manpages-zh",
    "libpython3.11-stdlib",
    "bible-kjv-text",
    "fortunes-de",
    "fortunes-ru",
    "perl-doc",
    "git-doc",
]
NO_TEXT = {".png", ".svg", ".css", ".xpm", ".so", ".gif", ".js", ".pdf", ".dat"}
MARKUP = re.compile(r"<(script|style)\b.*?</\1>|<[^>]*>", re.DOTALL | re.IGNORECASE)
BLANK_LINES = re.compile(r"\n(?:[ \t]*\n){2,}")


def text_of(path: Path) -> str:
    """Return the text of a file; empty if the file is not text."""
    content = path.read_bytes()
    if path.suffix == ".gz":
        content, path = gzip.decompress(content), path.with_suffix("")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return ""
    if path.suffix in NO_TEXT or "\0" in text:
        return ""
    return BLANK_LINES.sub("\n\n", html.unescape(MARKUP.sub("", text))) if path.suffix == ".html" else text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument(
        "--packages", type=Path, default=Path("varied_packages"), help="folder of the downloaded packages"
    )
    arguments = parser.parse_args()

    folder = arguments.packages
    folder.mkdir(parents=True, exist_ok=True)
    if missing := [name for name in PACKAGES if not list(folder.glob(f"{name}_*.deb"))]:
        subprocess.run(["apt-get", "download", *missing], cwd=folder, check=True)
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, folder / "unpacked"], check=True)
    files = [path for path in (folder / "unpacked").rglob("*") if path.is_file() and not path.is_symlink()]
    files.sort(key=lambda path: hashlib.sha256(str(path.relative_to(folder)).encode()).digest())
    left = arguments.megabytes * 1_000_000
    with open(arguments.output, "wb") as output:
        for path in files:
            content = text_of(path).encode()[:left]
            left -= output.write(content.decode(errors="ignore").encode())
            if left <= 3:
                return
    print(f"these packages have {left:,} bytes less")


if __name__ == "__main__":
    main()
