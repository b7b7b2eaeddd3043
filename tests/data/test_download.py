"""Downloads against a server on this machine: retried, resumed, verified, and refused in one line."""

import hashlib
import http.server
import json
import time

import pytest
from support.local_server import served

from hipgpt.base.errors import UserError
from hipgpt.data import download as fetch

TEXT = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(TEXT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves server.files with ranges, after the statuses in server.failures; sends server.cut bytes and hangs up."""

    def do_GET(self):
        server = self.server
        server.ranges.append(self.headers["Range"])
        content = server.files.get(self.path)
        if server.failures or content is None:
            self.send_error(server.failures.pop(0) if server.failures else 404)
            return
        start = int((self.headers["Range"] or "bytes=0-")[6:-1]) if server.serves_ranges else 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Type", "application/vnd.pypi.simple.v1+json")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:][: server.cuts.pop(0) if server.cuts else None])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(fetch, "PAUSES_SECONDS", (0, 0))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with served(Handler) as server:
        server.files, server.failures, server.cuts, server.ranges, server.serves_ranges = {"/t": TEXT}, [], [], [], True
        yield server


def test_a_file_is_downloaded_once_and_then_found(server, tmp_path):
    for _ in range(2):
        assert fetch.fetch(f"{server.url}/t", tmp_path, SHA256).read_bytes() == TEXT
    assert server.ranges == [None]
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


def test_a_busy_server_is_asked_again(server, tmp_path, caplog):
    server.failures = [503, 429]
    assert fetch.fetch(f"{server.url}/t", tmp_path, SHA256).read_bytes() == TEXT
    assert "HTTP 503 Service Unavailable; trying again" in caplog.text


def test_a_broken_connection_is_resumed_where_it_broke(server, tmp_path):
    server.cuts = [fetch.BLOCK + 1000]
    assert fetch.fetch(f"{server.url}/t", tmp_path, None).read_bytes() == TEXT
    assert server.ranges == [None, f"bytes={fetch.BLOCK + 1000}-"]


def test_a_part_of_an_earlier_run_is_resumed(server, tmp_path):
    (tmp_path / "t.part").write_bytes(TEXT[:5000])
    assert fetch.fetch(f"{server.url}/t", tmp_path, SHA256).read_bytes() == TEXT
    assert server.ranges == ["bytes=5000-"]


def test_a_part_is_kept_when_the_run_fails(server, tmp_path):
    server.cuts = [fetch.BLOCK] * 3
    with pytest.raises(UserError, match="cannot download"):
        fetch.fetch(f"{server.url}/t", tmp_path, SHA256)
    assert (tmp_path / "t.part").read_bytes() == TEXT[: 3 * fetch.BLOCK]


def test_a_part_that_no_hash_vouches_for_is_not_resumed(server, tmp_path):
    (tmp_path / "t.part").write_bytes(b"of another file")
    assert fetch.fetch(f"{server.url}/t", tmp_path, None).read_bytes() == TEXT
    assert server.ranges == [None]


def test_a_part_longer_than_the_file_starts_over(server, tmp_path):
    (tmp_path / "t.part").write_bytes(TEXT + TEXT)
    assert fetch.fetch(f"{server.url}/t", tmp_path, SHA256).read_bytes() == TEXT


def test_a_server_without_ranges_starts_over(server, tmp_path):
    server.serves_ranges, server.cuts = False, [1000]
    assert fetch.fetch(f"{server.url}/t", tmp_path, SHA256).read_bytes() == TEXT


def test_a_wrong_hash_removes_the_file_and_says_both(server, tmp_path):
    with pytest.raises(UserError, match=f"sha256 is {SHA256}, expected {'0' * 64}; the file was removed"):
        fetch.fetch(f"{server.url}/t", tmp_path, "0" * 64)
    assert list(tmp_path.iterdir()) == []


def test_a_file_with_another_hash_is_fetched_again(server, tmp_path):
    (tmp_path / "t").write_bytes(b"yesterday's")
    assert fetch.fetch(f"{server.url}/t", tmp_path, SHA256).read_bytes() == TEXT


def test_a_missing_page_fails_at_once_in_one_line(server, tmp_path):
    with pytest.raises(UserError) as caught:
        fetch.fetch(f"{server.url}/nowhere", tmp_path, SHA256)
    assert "/nowhere: HTTP 404 Not Found; check" in str(caught.value)
    assert len(server.ranges) == 1


def test_no_network_is_one_line_with_what_where_why_and_remedy(server, tmp_path):
    with pytest.raises(UserError) as caught:
        fetch.fetch("http://user:secret@127.0.0.1:1/input.txt", tmp_path, SHA256)
    assert str(caught.value) == (
        "cannot download http://127.0.0.1:1/input.txt: Connection refused; "
        f"check the network and the address, or put the file at {tmp_path}/input.txt"
    )


@pytest.fixture
def index(server, monkeypatch):
    """Make the server a package index that has plays 1.0 as a source archive and as a wheel."""
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
    files = [
        {"filename": name, "url": f"{server.url}/files/{name}", "hashes": {"sha256": SHA256}}
        for name in ("plays-1.0-py3-none-any.whl", "plays-1.0.tar.gz")
    ]
    page = {"meta": {"api-version": "1.0"}, "name": "plays", "files": files}
    server.files = {"/simple/plays/": json.dumps(page).encode(), "/files/plays-1.0.tar.gz": TEXT}
    return server


def test_a_source_archive_comes_from_the_index_that_pip_uses(index, tmp_path):
    path = fetch.fetch_sdist("plays", "1.0", tmp_path, SHA256)
    assert (path.name, path.read_bytes()) == ("plays-1.0.tar.gz", TEXT)
    assert fetch.fetch_sdist("plays", "1.0", tmp_path, SHA256) == path
    assert len(index.ranges) == 2  # the page and the file, once


def test_the_index_s_hash_counts_when_the_config_has_none(index, tmp_path):
    index.files["/files/plays-1.0.tar.gz"] = b"something else"
    with pytest.raises(UserError, match=f"expected {SHA256}"):
        fetch.fetch_sdist("plays", "1.0", tmp_path, None)


def test_a_version_that_is_not_there_names_those_that_are(index, tmp_path):
    with pytest.raises(UserError, match=r"no source archive of plays '2.0'; it has 1\.0$"):
        fetch.fetch_sdist("plays", "2.0", tmp_path, SHA256)


def test_a_package_that_is_not_there_is_named(index, tmp_path):
    with pytest.raises(UserError, match="this index has no package 'poems'"):
        fetch.fetch_sdist("poems", "1.0", tmp_path, SHA256)


class HostileHandler(http.server.BaseHTTPRequestHandler):
    """Answers with the status, reason, headers and body in server.answer; sleeps server.pause before each byte."""

    def do_GET(self):
        status, reason, headers, body = self.server.answer
        self.send_response(status, reason)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        for byte in body:
            time.sleep(self.server.pause)
            self.wfile.write(bytes([byte]))

    def log_message(self, *_):
        pass


@pytest.fixture
def hostile(monkeypatch):
    monkeypatch.setattr(fetch, "PAUSES_SECONDS", ())
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with served(HostileHandler) as server:
        server.url, server.pause = f"{server.url}/t", 0
        yield server


@pytest.mark.parametrize(
    "answer",
    [
        (416, "Range Not Satisfiable", {}, b""),
        (500, "\x1b[2Jcleared\x07", {}, b""),
        (302, "Found", {"Location": "http://[::1"}, b""),
        (302, "Found", {"Location": "http://" + "a" * 300 + ".invalid/"}, b""),
        (302, "Found", {"Location": "ftp://example.invalid/"}, b""),
        (200, "OK", {"Content-Length": "12"}, b"short"),
        (200, "OK", {"Content-Encoding": "gzip"}, b"no gzip"),
        (200, "OK", {"Transfer-Encoding": "chunked"}, b"zz\r\n"),
    ],
    ids=lambda answer: f"{answer[0]} {list(answer[2])}",
)
def test_a_bad_answer_is_one_printable_line(hostile, tmp_path, answer, capfd):
    hostile.answer = answer
    with pytest.raises(UserError, match="cannot download http://127.0.0.1:") as error:
        fetch.fetch(hostile.url, tmp_path, SHA256)
    assert str(error.value).isprintable()
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize("length", ["-1", "many", "", "9" * 400])
def test_a_length_that_is_no_number_is_not_believed(hostile, tmp_path, length):
    hostile.answer = 200, "OK", {"Content-Length": length}, b"text"
    try:
        assert fetch.fetch(hostile.url, tmp_path, None).read_bytes() == b"text"
    except UserError as error:
        assert str(error).startswith("cannot download")


def test_a_server_that_sends_byte_by_byte_is_given_up(hostile, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "PATIENCE_SECONDS", 0.3)
    hostile.answer, hostile.pause = (200, "OK", {"Content-Length": "100"}, bytes(100)), 0.05
    began = time.monotonic()
    with pytest.raises(UserError, match=r"bytes in \d+ s, which is too slow"):
        fetch.fetch(hostile.url, tmp_path, SHA256)
    assert time.monotonic() - began < 3
