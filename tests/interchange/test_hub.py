"""`hipgpt export --push`: a local server that answers as the hub does gets every file in one commit."""

import base64
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hipgpt.base.paths import ROOT
from hipgpt.interchange.huggingface import FILES

pytest.importorskip("huggingface_hub", reason="needs pip install -e '.[hub]'")


class Hub(ThreadingHTTPServer):
    """bodies: the body of each request by its path; refuses: the status and text of an answer to every request."""

    def __init__(self, refuses: tuple[int, str] | None = None):
        super().__init__(("127.0.0.1", 0), Answers)
        self.refuses, self.bodies, self.tokens = refuses, {}, set()
        self.address = f"http://127.0.0.1:{self.server_port}"


class Answers(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.bodies[self.path] = body
        self.server.tokens.add(self.headers["Authorization"])
        if self.server.refuses:
            status, text = self.server.refuses
            return self.answer(status, {"error": text})
        return self.answer(200, self.found(body))

    def do_GET(self) -> None:
        self.answer(404, {})

    def found(self, body: bytes) -> dict:
        if self.path.endswith("/repos/create"):
            asked = json.loads(body)
            return {"url": f"{self.server.address}/{asked['organization']}/{asked['name']}"}
        if "/preupload/" in self.path:
            regular = {"uploadMode": "regular", "shouldIgnore": False}
            return {"files": [{"path": file["path"], **regular} for file in json.loads(body)["files"]]}
        if "/commit/" in self.path:
            return {"commitUrl": f"{self.server.address}/someone/plays/commit/1", "commitOid": "1" * 40}
        return {"errors": [], "warnings": []}  # of the model card's metadata

    def answer(self, status: int, content: dict) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub():
    """Return a function that starts a server."""
    started = []

    def start(*arguments) -> Hub:
        started.append(Hub(*arguments))
        threading.Thread(target=started[-1].serve_forever, daemon=True).start()
        return started[-1]

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


def export(results: Path, output: Path, address: str, *options: str) -> subprocess.CompletedProcess:
    """Run the command in a process of its own, because the library reads HF_ENDPOINT once."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    environment |= {"HF_ENDPOINT": address, "HF_TOKEN": "hf_secret", "HF_HOME": str(output), "NO_PROXY": "127.0.0.1"}
    program = [sys.executable, "-m", "hipgpt", "export", "--push", "someone/plays", "--output", str(output), *options]
    return subprocess.run(
        [*program, "--results", str(results)], env=environment, capture_output=True, text=True, timeout=120
    )


def is_private(server: Hub) -> bool:
    created = json.loads(server.bodies["/api/repos/create"])
    return created.get("visibility") == "private" or created.get("private", False)  # of newer and older libraries


def test_every_file_arrives_in_one_commit_with_the_token(results, tmp_path, hub):
    server = hub()
    done = export(results, tmp_path, server.address)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{server.address}/someone/plays"
    created = json.loads(server.bodies["/api/repos/create"])
    assert (created["organization"], created["name"]) == ("someone", "plays")
    lines = [json.loads(line) for line in server.bodies["/api/models/someone/plays/commit/main"].splitlines()]
    assert lines[0]["value"]["summary"] == "Export run default by HipGPT"
    files = {line["value"]["path"]: base64.b64decode(line["value"]["content"]) for line in lines[1:]}
    assert files == {name: (tmp_path / name).read_bytes() for name in FILES}
    assert server.tokens == {"Bearer hf_secret"}
    assert not is_private(server)


def test_a_repository_can_be_made_private(results, tmp_path, hub):
    server = hub()
    done = export(results, tmp_path, server.address, "--private")
    assert done.returncode == 0, done.stderr
    assert is_private(server)


def test_a_refusal_is_one_line_with_the_server_s_reason(results, tmp_path, hub):
    server = hub((403, "you may not write here"))
    done = export(results, tmp_path, server.address)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: --push: {server.address} refused someone/plays: ")
    assert done.stderr.endswith(" you may not write here\n")
    assert "/api/models/someone/plays/commit/main" not in server.bodies


def test_a_server_that_is_not_there_is_one_line(results, tmp_path, hub):
    server = hub()
    server.shutdown()
    server.server_close()
    done = export(results, tmp_path, server.address)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: --push: {server.address} refused someone/plays: ")


@pytest.mark.parametrize("name", ["plays", "a/b/c", "someone/two words", "/"])
def test_another_name_than_owner_and_name_is_refused(hipgpt, tmp_path, name):
    status, _, _ = hipgpt("export", "--push", name, "--output", str(tmp_path / "out"))
    assert status == f"error: --push: got {name!r}, expected OWNER/NAME"
    assert not (tmp_path / "out").exists()


def test_without_a_token_the_remedy_is_named(hipgpt, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    status, _, _ = hipgpt("export", "--push", "someone/plays", "--output", str(tmp_path / "out"))
    assert status == "error: --push: found no token of the hub; set HF_TOKEN, or log in by hf auth login"
    assert not (tmp_path / "out").exists()


def test_without_the_package_the_remedy_is_named(hipgpt, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    status, _, _ = hipgpt("export", "--push", "someone/plays", "--output", str(tmp_path / "out"))
    assert status.endswith("huggingface_hub is missing, but --push needs it; pip install -e '.[hub]'")
