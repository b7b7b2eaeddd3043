"""Fuzz targets of what comes over the network: answers of a server, and archives."""

import bz2
import functools
import gzip
import io
import json
import lzma
import random
import socket
import tarfile
import threading
import zipfile
from pathlib import Path

import zstandard

from hipgpt.data import download
from hipgpt.data.archives import documents
from hipgpt.data.formats import contents
from hipgpt.data.plain_text import plain_text
from hipgpt.inference.multiple_choice import read_questions, sequence
from support import tiny
from support.mutations import mutated_bytes

Files = dict[str, bytes]  # of a case, by name
TEXT = b"the king and the queen\n" * 40


@functools.cache
def archive_files() -> Files:
    zipped, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("a.txt", "b/c.txt"):
            archive.writestr(zipfile.ZipInfo(name), TEXT)
    with tarfile.open(fileobj=tarred, mode="w") as archive:
        for name in ("a.txt", "b/" + "long" * 40):
            info = tarfile.TarInfo(name)
            info.size = len(TEXT)
            archive.addfile(info, io.BytesIO(TEXT))
    tar = tarred.getvalue()
    files = {"x.zip": zipped.getvalue(), "x.tar": tar, "x.txt": TEXT}
    for name, data in (("x", TEXT), ("x.tar", tar)):
        files |= {f"{name}.gz": gzip.compress(data, mtime=0), f"{name}.zst": zstandard.compress(data)}
        files |= {f"{name}.xz": lzma.compress(data), f"{name}.bz2": bz2.compress(data)}
    return files


def archive(draw: random.Random) -> Files:
    files = archive_files()
    name = draw.choice([*files])
    return {name: mutated_bytes(draw, files[name], [*files.values()])}


def read_archive(folder: Path) -> None:
    [path] = folder.iterdir()
    for name, blocks in documents(path, None, folder):
        for _ in plain_text(name, blocks):
            pass


@functools.cache
def record_files() -> Files:
    import pyarrow as arrow
    from pyarrow import parquet

    texts = [f"text {number} é" for number in range(20)]
    columns, file = io.BytesIO(), arrow.table({"id": range(20), "text": texts})
    parquet.write_table(file, columns, row_group_size=6)
    lines = "".join(json.dumps({"id": 1, "text": text}) + "\n" for text in texts).encode()
    return {"x.jsonl": lines, "x.jsonl.gz": gzip.compress(lines, mtime=0), "x.parquet": columns.getvalue()}


def records(draw: random.Random) -> Files:
    files = record_files()
    name = draw.choice([*files])
    return {name: mutated_bytes(draw, files[name], [*files.values()])}


def read_records(folder: Path) -> None:
    for content in contents([*folder.iterdir()], {}, folder):
        for part in content.parts:
            part.decode()


QUESTIONS = "".join(
    json.dumps({"ctx": f"question {number}: ", "endings": ["one", "two é"], "label": number % 2}) + "\n"
    for number in range(5)
).encode()


def questions(draw: random.Random) -> Files:
    return {"x.jsonl": mutated_bytes(draw, QUESTIONS, [QUESTIONS])}


def ask_questions(folder: Path) -> None:
    for question in read_questions({"path": str(folder / "x.jsonl")}):
        for choice in question.choices:
            sequence(tiny.tokenizer(), question, choice, 100)


def http(draw: random.Random) -> Files:
    head = [b"HTTP/1.1 %d OK" % draw.choice((200, 206, 301, 302, 404, 416, 503)), b"Content-Length: %d" % len(TEXT)]
    extra = (
        b"Location: /other",
        b"Content-Encoding: gzip",
        b"Transfer-Encoding: chunked",
        b"Content-Range: bytes 5-9/10",
    )
    head += draw.sample(extra, draw.choice((0, 1, 2)))
    answer = b"\r\n".join(head) + b"\r\n\r\n" + TEXT
    return {"answer": mutated_bytes(draw, answer, []) if draw.random() < 0.9 else answer}


def read_http(folder: Path) -> None:
    """Fetch from a server that gives the same answer to every request."""
    answer = (folder / "answer").read_bytes()
    download.PAUSES_SECONDS, download.TIMEOUT_SECONDS = (0,), (1, 1)  # type: ignore[assignment]
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)
        thread = threading.Thread(target=_answer, args=(server, answer), daemon=True)
        thread.start()
        try:
            download.fetch(f"http://127.0.0.1:{server.getsockname()[1]}/t", folder / "got", None)
        finally:
            server.shutdown(socket.SHUT_RDWR)  # ends the wait for the next connection
            thread.join()


def _answer(server: socket.socket, answer: bytes) -> None:
    while True:
        try:
            connection, _ = server.accept()
            connection.settimeout(1)
            with connection:
                connection.recv(65536)
                connection.sendall(answer)
        except OSError:
            return
