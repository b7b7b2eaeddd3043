"""No text is read or written in the encoding that the machine happens to have."""

import ast
from collections.abc import Iterator

import pytest

from hipgpt.base.paths import ROOT

SOURCES = [path for folder in ("hipgpt", "workflow", "docs", "bench") for path in sorted((ROOT / folder).rglob("*.py"))]
OPENERS = {"open", "fdopen", "NamedTemporaryFile", "TemporaryFile"}
OTHER_OPENERS = ("os", "tarfile", "archive", "zipfile")  # whose `open` has to do with bytes
MODES = {kind + how for kind in "rwax" for how in ("", "b", "+", "b+", "+b")}
TEXT_CALLS = {"read_text", "write_text", "FileHandler"}


def without_encoding(source: str) -> Iterator[str]:
    """Yield each call that reads or writes text without saying how it is encoded."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        owner = ast.unparse(node.func).rpartition(".")[0]
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        inside = [one for argument in (*node.args, *keywords.values()) for one in ast.walk(argument)]
        modes = [one.value for one in inside if isinstance(one, ast.Constant) and one.value in MODES]
        opens = name in OPENERS and owner not in OTHER_OPENERS and not any("b" in mode for mode in modes)
        opens &= bool(modes) or "Temporary" not in name  # whose mode is w+b unless another is given
        as_text = any(ast.unparse(keywords[key]) == "True" for key in ("text", "universal_newlines") if key in keywords)
        if (opens or name in TEXT_CALLS or as_text) and "encoding" not in keywords:
            yield ast.unparse(node)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_text_file_has_an_encoding(path):
    assert list(without_encoding(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    ["open(x)", "path.open('a')", "path.read_text()", "path.write_text('b')", "subprocess.run(x, text=True)",
     "logging.FileHandler(x)", "tempfile.NamedTemporaryFile('w')"],
)  # fmt: skip
def test_such_a_call_would_be_seen(source):
    assert list(without_encoding(source))


@pytest.mark.parametrize(
    "source", ["open(x, 'rb')", "os.open(x, y)", "path.read_text(encoding='utf-8')", "x.open('ab')"]
)
def test_bytes_need_no_encoding(source):
    assert not list(without_encoding(source))
