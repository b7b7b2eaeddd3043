"""`hipgpt generate --chat`: each line continues all that was said so far, from a pipe and on a terminal."""

import io
import os
import pty
import subprocess
import sys

import pytest
from support import tiny

from hipgpt.base.paths import ROOT
from hipgpt.compute.open_device import open_device
from hipgpt.config.settings import SamplingConfig
from hipgpt.gpt.decoder import Decoder
from hipgpt.inference.sampling import generate_one


def answer(said: bytes, number: int) -> bytes:
    """Return the continuation of everything that was said, which is longer than the model's context."""
    device, tokenizer = open_device("cpu", 2), tiny.tokenizer()
    decoder = Decoder(device, tiny.MODEL, tiny.place(device, tiny.MODEL, tiny.draw_arrays()))
    ids = tokenizer.encode(said).tolist()
    return tokenizer.decode(list(generate_one(decoder, ids, SamplingConfig(9), tokenizer.end_of_text, number)))


def test_each_piped_line_continues_the_whole_conversation(hipgpt, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"to be, or not to be?\nn\xff"), encoding="utf-8"))
    first = answer(b"to be, or not to be?\n", 0)
    second = answer(b"to be, or not to be?\n" + first + b"\nn\xff\n", 1)
    lines = ("> to be, or not to be?", first), ("> n\N{REPLACEMENT CHARACTER}", second)
    shown = "".join(f"{said}\n{answer.decode('utf-8', 'replace')}\n" for said, answer in lines)
    assert hipgpt("generate", "--chat", "--num-tokens", "9") == (None, shown, "")


def test_a_stop_text_ends_each_answer(hipgpt, monkeypatch):
    contexts = []

    def draw(decoder, ids, *arguments, **options):
        contexts.append(bytes(tiny.tokenizer().decode(ids)))
        return iter(b"yes.no")

    monkeypatch.setattr("hipgpt.inference.sampling.generate_one", draw)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a\nb\n"), encoding="utf-8"))
    assert hipgpt("generate", "--chat", "--stop", ".")[1] == "> a\nyes\n> b\nyes\n"
    assert contexts == [b"a\n", b"a\nyes\nb\n"]


def test_a_terminal_has_a_prompt_a_history_and_ends_by_ctrl_d(results):
    terminal, side = pty.openpty()
    program = [sys.executable, "-m", "hipgpt", "generate", "--chat", "--num-tokens", "2", "--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"}
    process = subprocess.Popen(
        program, cwd=results.parent, env=environment, stdin=side, stdout=side, stderr=subprocess.PIPE
    )
    os.close(side)
    assert until(terminal, b"> ")
    os.write(terminal, b"to be\n")
    assert until(terminal, b"> ")
    os.write(terminal, b"\x1b[A")  # the arrow up brings the last line back
    assert until(terminal, b"to be")
    os.write(terminal, b"\n")
    assert until(terminal, b"> ")
    os.write(terminal, b"\x04")
    assert process.wait(timeout=60) == 0, process.stderr.read()
    assert process.stderr.read() == b""
    os.close(terminal)


def until(terminal: int, text: bytes) -> bool:
    """Read from the terminal until `text` comes."""
    shown = b""
    while not shown.endswith(text):
        shown += os.read(terminal, 1)
    return True


@pytest.mark.parametrize("option", [["--json"], ["-n", "2"]])
def test_an_option_that_does_not_fit_is_refused(hipgpt, option):
    message = "error: --chat: got --json or --num-samples with it, expected neither"
    assert hipgpt("generate", "--chat", *option)[0] == message
