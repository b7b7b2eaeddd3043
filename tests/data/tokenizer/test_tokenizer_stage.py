"""The stage train_tokenizer: its files, an existing tokenizer instead of training, its progress; hipgpt tokenize."""

import csv
import io
import os
import subprocess
import sys
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from hipgpt.base.errors import UserError
from hipgpt.base.paths import ROOT
from hipgpt.cli import main as cli
from hipgpt.cli.show_tokens import show_tokens
from hipgpt.data.tokenizer import reference as bpe
from hipgpt.data.tokenizer import stage
from hipgpt.data.tokenizer.chunks import file_chunks
from hipgpt.data.tokenizer.pretokenize import END_OF_TEXT, PATTERNS, split_pieces
from hipgpt.data.tokenizer.tokenizer import Tokenizer, train, train_merges

TEXT = (ROOT / "README.md").read_bytes() * 3 + END_OF_TEXT.encode() + "Été 你好 😀\n".encode() * 20
VOCAB_SIZE = 1100


@pytest.fixture
def text(tmp_path):
    (tmp_path / "train.txt").write_bytes(TEXT)
    return tmp_path / "train.txt"


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def make(text, settings, threads=1, name="made"):
    output = text.parent / name
    output.mkdir(exist_ok=True)
    stage.make_tokenizer(settings, text, output, output / "downloads", threads)
    return output


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_files_are_the_same_for_any_number_of_threads(text, pattern, monkeypatch):
    monkeypatch.setattr(stage, "CHUNK_BYTES", 1000)
    settings = {"vocab_size": VOCAB_SIZE, "pattern": pattern}
    folders = [make(text, settings, threads, str(threads)) for threads in (1, 2, 3, 8)]
    for name in ("tokenizer.json", "merges.csv", "compression.csv"):
        assert len({(folder / name).read_bytes() for folder in folders}) == 1
    assert Tokenizer.load(folders[0] / "tokenizer.json") == train([TEXT], VOCAB_SIZE, pattern)


def test_a_merge_has_the_pairs_count_when_it_was_chosen_and_the_tokens_it_saved(text):
    found = rows(make(text, {"vocab_size": VOCAB_SIZE}) / "merges.csv")
    merges = [tuple(pair) for pair in train_merges([TEXT], VOCAB_SIZE)["pair"].tolist()]
    names = bpe.spell_merges(merges)
    assert [(row["left"], row["right"], row["piece"]) for row in found] == [
        (str(names[left]), str(names[right]), str(names[left] + names[right])) for left, right in merges
    ]
    assert [int(row["rank"]) for row in found] == list(range(VOCAB_SIZE - 257))
    words = Counter(piece for part in TEXT.split(END_OF_TEXT.encode()) for piece in split_pieces(part))
    for rank in (0, 1, 50, 400):
        before = {word: bpe.encode(word, merges[:rank]) for word in words}
        after = {word: bpe.encode(word, merges[: rank + 1]) for word in words}
        pairs = sum(count * [*pairwise(before[word])].count(merges[rank]) for word, count in words.items())
        saved = sum(count * (len(before[word]) - len(after[word])) for word, count in words.items())
        assert (int(found[rank]["pair_count"]), int(found[rank]["tokens_saved"])) == (pairs, saved)


def test_compression_by_size_is_what_each_smaller_tokenizer_reaches(text):
    found = rows(make(text, {"vocab_size": VOCAB_SIZE}) / "compression.csv")
    assert [int(row["vocab_size"]) for row in found] == [256, 512, 1024, VOCAB_SIZE]
    ends = TEXT.count(END_OF_TEXT.encode())
    for row in found:
        merges = max(int(row["vocab_size"]) - (257 if row is found[-1] else 256), 0)
        tokenizer = train([TEXT], merges + 257)
        # the bytes of a literal <|endoftext|>, which is one id, count as bytes here
        tokens = len(tokenizer.encode(TEXT)) + ends * (len(END_OF_TEXT) - 1)
        assert int(row["tokens"]) == tokens
        assert float(row["bytes_per_token"]) == pytest.approx(len(TEXT) / tokens, abs=1e-4)


def test_the_progress_bar_leaves_no_trace_in_a_file(text, capsys):
    make(text, {"vocab_size": VOCAB_SIZE})
    assert "%" not in capsys.readouterr().err


@pytest.mark.parametrize("name", ["source.json", "source.tiktoken"])
def test_an_existing_tokenizer_takes_the_place_of_training(text, name):
    source = train([TEXT], 600, "cl100k")
    source.save(text.parent / name)
    output = make(text, {"vocab_size": source.vocab_size, "from": str(text.parent / name)}, threads=2)
    made = Tokenizer.load(output / "tokenizer.json")
    assert (made.merges, made.ids, made.pattern) == (source.merges, source.ids, "cl100k")
    (row,) = rows(output / "compression.csv")
    assert int(row["tokens"]) == len(source.encode(TEXT))
    assert [int(row["rank"]) for row in rows(output / "merges.csv")] == list(range(len(source.merges)))


def test_an_existing_tokenizer_of_more_tokens_is_refused_with_the_setting_to_change(text):
    train([TEXT], 600).save(text.parent / "source.json")
    with pytest.raises(UserError, match=r"source\.json: has 600 tokens.*set tokenizer\.vocab_size: 600"):
        make(text, {"vocab_size": 500, "from": str(text.parent / "source.json")})


def test_an_existing_tokenizer_of_fewer_tokens_is_padded_with_special_ones(text, capsys):
    source = train([TEXT], 600)
    source.save(text.parent / "source.json")
    output = make(text, {"vocab_size": 640, "from": str(text.parent / "source.json")})
    made = Tokenizer.load(output / "tokenizer.json")
    assert made.vocab_size == 640
    assert (made.merges, made.ids) == (source.merges, source.ids)
    assert np.array_equal(made.encode(TEXT), source.encode(TEXT))
    assert made.decode([599, 600, 639]) == b"<|endoftext|><|padding0|><|padding39|>"
    assert not made.byte_counts[599:].any()
    assert "600 tokens, padded to 640" in capsys.readouterr().err


def test_training_reports_every_chunk_and_every_merge(text):
    done = Counter()

    def progress(stage_name, more):
        done[stage_name] += more

    train_merges(file_chunks(text, 1000), VOCAB_SIZE, threads=2, progress=progress)
    assert done == {"chunks": len(list(file_chunks(text, 1000))), "merges": VOCAB_SIZE - 257}


@pytest.mark.parametrize("vocab_size", [257, VOCAB_SIZE])
def test_the_progress_bar_moves_and_never_passes_its_end(text, vocab_size, monkeypatch):
    shares = []

    class Bar(stage.tqdm):
        def update(self, n=1):
            shares.append(n)
            return super().update(n)

    monkeypatch.setattr(stage, "tqdm", Bar)
    monkeypatch.setattr(stage, "CHUNK_BYTES", 1000)
    make(text, {"vocab_size": vocab_size})
    assert len(shares) > 10
    assert min(shares) >= 0
    assert sum(shares) <= 1 + 1e-9


def test_the_script_shows_a_mistake_in_one_line(text):
    command = [sys.executable, ROOT / "workflow/scripts/train_tokenizer.py", "--text", text, "--output", text.parent]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for settings, message in (
        ('{"vocab_size": 90000}', "error: vocab_size: got 90000, but this text gives "),
        ('{"vocab_size": 300, "from": "nowhere.json"}', "error: nowhere.json: cannot read the tokenizer"),
    ):
        done = subprocess.run([*command, "--settings", settings], env=environment, capture_output=True, text=True)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith(message)
        assert "Traceback" not in done.stderr


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_tokens_are_shown_each_on_a_background_of_its_own_on_a_terminal():
    tokenizer, stream = train([b"ab ab ab"], 258), Terminal()
    show_tokens(tokenizer, tokenizer.encode("abé\x1b\n ab"), stream)
    shown = stream.getvalue()
    assert shown.startswith("\033[30;48;5;153mab\033[0m\033[30;48;5;223m")
    colours = [part.partition("m")[0] for part in shown.split("\033[30;48;5;")[1:]]
    assert all(left != right for left, right in pairwise(colours[:4]))
    assert "\\xc3" in shown and "\\x1b" in shown and "⏎\033[0m\n" in shown
    assert shown.endswith("7 tokens, 9 bytes, 1.29 bytes per token\n")


def test_the_command_shows_pieces_with_their_ids_in_a_pipe(tmp_path, capsys, monkeypatch):
    train([b"ab ab ab"], 258).save(tmp_path / "tokenizer.json")
    command = ["hipgpt", "tokenize", "ab c", "--tokenizer", str(tmp_path / "tokenizer.json")]
    monkeypatch.setattr(sys, "argv", command)
    cli.main()
    assert capsys.readouterr().out == "256\tab\n32\t \n99\tc\n"
    monkeypatch.setattr(sys, "argv", [*command, "--ids"])
    cli.main()
    assert capsys.readouterr().out == "256 32 99\n"
