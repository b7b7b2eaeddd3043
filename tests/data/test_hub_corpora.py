"""Files of the Hugging Face Hub, from a small server on this machine: by commit, with hashes, refused in one line."""

import hashlib
import http.server
import json
import os
import subprocess
import sys

import pytest
from support import tiny
from support.local_server import served

from hipgpt.base.errors import UserError
from hipgpt.data.corpus import build_corpus
from hipgpt.data.hub import fetch_from_hub
from hipgpt.data.tokenizer import stage
from hipgpt.data.tokenizer.tokenizer import Tokenizer

pytest.importorskip("huggingface_hub", reason="needs pip install -e '.[hub]'")
COMMIT = "ab" * 20
TEXTS = {f"data/{name}.jsonl": "".join(f'{{"text": "{name} {n}"}}\n' for n in range(20)).encode() for name in "ba"}
FILES = {**TEXTS, "README.md": b"about\n", "tokenizer.json": b""}


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers for one repository, OWNER/NAME: which files a revision has, and their content at the commit."""

    def do_GET(self):
        kind, known = self.server.kind, self.server.files
        self.server.requests.append(self.path)
        content = None
        at = {f"/api/{kind}s/owner/name/revision/{name}": commit for name, commit in self.server.revisions.items()}
        if commit := at.get(self.path.split("?")[0]):
            siblings = [{"rfilename": name} for name in known]
            content = json.dumps({"id": "owner/name", "sha": commit, "siblings": siblings}).encode()
        prefix = "/" if kind == "model" else f"/{kind}s/"
        for name, data in known.items():
            if self.path == f"{prefix}owner/name/resolve/{COMMIT}/{name}":
                content = data
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch):
    with served(Hub) as server:
        server.files, server.kind, server.requests = dict(FILES), "dataset", []
        server.revisions = {"main": COMMIT, COMMIT: COMMIT}
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def test_a_corpus_of_the_hub_records_the_commit_and_the_hash_of_each_file(hub, tmp_path):
    settings = {"kind": "huggingface", "repository": "owner/name", "files": "data/*.jsonl", "cleaning": [],
                "validation_fraction": 0.1}  # fmt: skip
    build_corpus("web", settings, tmp_path / "out", tmp_path / "downloads")
    provenance = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert provenance["source"] == "Hugging Face: owner/name at main" and provenance["commit"] == COMMIT
    assert provenance["files_sha256"] == {name: hashlib.sha256(TEXTS[name]).hexdigest() for name in sorted(TEXTS)}
    assert (tmp_path / "out" / "train.txt").read_text().startswith("a 0\na 1\n")  # files come in the order of names
    assert not any("README" in path for path in hub.requests)
    build_corpus("web", settings, tmp_path / "out", tmp_path / "downloads")


def test_a_tokenizer_of_the_hub_is_taken_over(hub, tmp_path):
    tiny.tokenizer().save(tmp_path / "theirs.json")
    hub.kind, hub.files["tokenizer.json"] = "model", (tmp_path / "theirs.json").read_bytes()
    (tmp_path / "train.txt").write_bytes(tiny.TEXT)
    settings = {"from": "hub:owner/name", "vocab_size": tiny.MODEL.vocab_size}
    for source in ("hub:owner/name", "hub:owner/name@main"):
        stage.make_tokenizer({**settings, "from": source}, tmp_path / "train.txt", tmp_path, tmp_path / "downloads", 1)
        assert Tokenizer.load(tmp_path / "tokenizer.json") == tiny.tokenizer()


def fetch(tmp_path, repository="owner/name", revision="main", patterns=("*",)):
    return fetch_from_hub(repository, revision, patterns, tmp_path, "dataset")


def test_a_branch_that_moves_changes_no_corpus_until_its_downloads_are_deleted(hub, tmp_path):
    commit, paths = fetch(tmp_path, patterns=["data/*"])
    hub.revisions["main"] = "cd" * 20
    assert fetch(tmp_path, patterns=["data/*"]) == (commit, paths) and commit == COMMIT


def test_an_address_that_is_none_is_named(tmp_path):
    program = "from hipgpt.data.hub import fetch_from_hub; import pathlib\n"
    program += f"fetch_from_hub('owner/name', 'main', ['*'], pathlib.Path({str(tmp_path)!r}), 'dataset')"
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "HF_ENDPOINT": "http://a:b"}, capture_output=True, text=True
    )
    assert "UserError: " in done.stderr and "HF_ENDPOINT" in done.stderr.splitlines()[-1]


def test_a_pattern_without_a_file_lists_the_files(hub, tmp_path):
    with pytest.raises(
        UserError, match=r"owner/name at main: no file matches \*.parquet; it holds 4: README.md, data/a"
    ):
        fetch(tmp_path, patterns=["*.parquet"])


@pytest.mark.parametrize("changes", [{"repository": "owner/other"}, {"revision": "v9"}, {"repository": "a/b/c"}])
def test_what_the_server_does_not_have_is_refused_in_one_line(hub, tmp_path, changes):
    with pytest.raises(UserError, match="cannot be fetched .*; check the name, the network, HF_ENDPOINT, and HF_TOKEN"):
        fetch(tmp_path, **changes)


def test_a_server_that_is_not_there_is_named_as_such(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="owner/name at main: cannot be fetched .*check the name, the network"):
        fetch(tmp_path)


def test_a_file_outside_of_the_repository_is_refused(hub, tmp_path):
    hub.files["../evil"] = b"x"
    with pytest.raises(UserError, match="the file '../evil' points outside of the repository: refused"):
        fetch(tmp_path)
    assert not (tmp_path.parent / "evil").exists()


def test_without_the_package_the_message_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"needs the package huggingface_hub; pip install -e '.\[hub\]'"):
        fetch(tmp_path)
