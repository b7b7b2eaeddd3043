"""Evaluation: every target is predicted once from its full context, and the baselines are true distributions."""

import contextlib
import csv
import math
import os
import pty
import subprocess
import sys
import termios
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support import tiny
from support.corpora import write_corpus, write_shards

from hipgpt.base.paths import ROOT
from hipgpt.data.bits_per_byte import bits_per_byte
from hipgpt.data.tokens import Tokens, open_split
from hipgpt.inference import evaluation
from hipgpt.inference.baselines import COLUMNS, NGRAMS, lzma_bits, ngram_losses, read_tokens, write_baselines
from hipgpt.inference.evaluation import predict, write_evaluation

SEVEN_DIGITS = 5e-7  # as the CSV writes
T = tiny.MODEL.context_length
TOKENS = np.random.default_rng(5).integers(tiny.MODEL.vocab_size, size=61).astype(np.uint16)


@pytest.mark.parametrize("stride", [1, 3, T])
def test_each_token_but_the_first_is_predicted_once_from_its_window(device, monkeypatch, stride):
    monkeypatch.setattr(evaluation, "ROWS_AT_ONCE", 3 * T)  # so that the last batch is not full
    arrays = tiny.draw_arrays()
    weights = tiny.place(device, tiny.MODEL, arrays)
    scored: list[int] = []
    found = predict(device, tiny.MODEL, weights, Tokens([TOKENS[:20], TOKENS[20:]]), stride, scored.append)
    assert sum(scored) == len(TOKENS) - 1 and len(scored) > 1
    assert found.targets.tolist() == TOKENS[1:].tolist()

    for position in range(1, len(TOKENS)):
        # the first window that holds the target: windows begin at multiples of the stride, the last one ends the text
        first = max(0, -(-(position - T) // stride)) * stride
        context = TOKENS[min(first, len(TOKENS) - 1 - T) : position].tolist()
        logits = tiny.logits(tiny.MODEL, arrays, context)[-1:]
        target, loss = TOKENS[position], found.nats[position - 1]
        exact = math.log(np.exp(logits.value - logits.value[0, target]).sum())
        # logits are off by at most `error`, so their logsumexp is; then exp, sum and log round
        rounding = 2 * logits.error.max() + 2**-24 * (len(logits.value[0]) + 8) * (1 + np.ptp(logits.value))
        assert abs(loss - exact) <= rounding
        margin = logits.value[0] - logits.value[0, target]
        unsure = np.abs(margin) <= 2 * logits.error.max()
        assert (
            (margin[~unsure] > 0).sum() <= found.ranks[position - 1] <= (margin[~unsure] > 0).sum() + unsure.sum() - 1
        )


def test_bits_per_byte_counts_the_bytes_of_the_tokens_that_stand_for_text():
    nats = np.array([1.0, 2.0, 4.0], np.float32)
    assert bits_per_byte(nats, np.array([2, 0, 3])) == pytest.approx(5 / (math.log(2) * 5), rel=1e-15)
    with pytest.raises(ValueError, match="the tokens stand for no bytes"):
        bits_per_byte(nats, np.zeros(3, np.int64))


def test_a_uniform_prediction_of_bytes_costs_eight_bits_a_byte():
    assert bits_per_byte(np.full(100, math.log(256)), np.ones(100, np.int64)) == pytest.approx(8, rel=1e-15)


def discounts(train: list[int], order: int) -> dict[int, float]:
    """Return the discount of each n-gram length from 2 on."""
    found = {}
    for length in range(2, order + 1):
        seen = Counter(Counter(tuple(train[i : i + length]) for i in range(len(train) - length + 1)).values())
        found[length] = seen[1] / (seen[1] + 2 * seen[2]) if seen[1] else 0.5
    return found


def slow_probability(train: list[int], history: tuple[int, ...], word: int, vocab_size: int, order: int) -> float:
    """Return p(word | history) by looking for the history in the training tokens, position by position."""
    if not history:
        return (train.count(word) + 1) / (len(train) + vocab_size)
    shorter = slow_probability(train, history[1:], word, vocab_size, order)
    length = len(history)
    followers = Counter(
        train[i + length] for i in range(len(train) - length) if tuple(train[i : i + length]) == history
    )
    total, discount = sum(followers.values()), discounts(train, order)[length + 1]
    if total == 0:
        return shorter
    return (max(followers[word] - discount, 0) + discount * len(followers) * shorter) / total


TEXTS = st.lists(st.integers(0, 4), min_size=4, max_size=40)


@settings(deadline=None)
@given(TEXTS, TEXTS, st.integers(1, 3))
@example([0, 1] * 4, [0, 1, 2, 0], 3)  # no n-gram is seen once
def test_ngram_losses_are_those_of_the_definition(train, text, order):
    *_, found = ngram_losses(np.array(train), np.array(text), 5, order)
    histories = [tuple(text[max(0, position - order + 1) : position]) for position in range(1, len(text))]
    expected = [slow_probability(train, h, w, 5, order) for h, w in zip(histories, text[1:], strict=True)]
    assert np.exp(-found) == pytest.approx(expected, rel=1e-12)


@settings(deadline=None)
@given(TEXTS, st.tuples(st.integers(0, 4), st.integers(0, 4)), st.integers(1, 3))
@example([0, 1] * 4, (0, 1), 3)
def test_ngram_probabilities_sum_to_one_over_the_vocabulary_and_none_is_zero(train, history, order):
    losses = [ngram_losses(np.array(train), np.array([*history, word]), 5, order)[-1][-1] for word in range(5)]
    assert np.isfinite(losses).all()
    assert np.exp(-np.array(losses)).sum() == pytest.approx(1, rel=1e-12)


def test_read_tokens_returns_the_last_tokens_across_shards(monkeypatch):
    monkeypatch.setattr("hipgpt.inference.baselines.BLOCK", 7)
    tokens = Tokens([TOKENS[:20], TOKENS[20:]])
    assert read_tokens(tokens, 10**6).tolist() == TOKENS.tolist()
    assert read_tokens(tokens, 30).tolist() == TOKENS[-30:].tolist()


def test_lzma_bits_are_what_the_text_adds_to_the_training_text():
    random = np.random.default_rng(0)
    known, new = random.bytes(5000), random.bytes(2000)
    assert 0 < lzma_bits(known, known[1000:3000]) < 8 * 200
    assert 8 * 2000 <= lzma_bits(known, new) < 8 * 2050
    assert lzma_bits(b"", b"a" * 2000) < 8 * 40


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    cut = len(tiny.TEXT) * 9 // 10
    write_shards(write_corpus(folder, *2 * [(tiny.TEXT[:cut], tiny.TEXT[cut:])]), tiny.tokenizer(), folder, 1)
    train, validation = (open_split(folder / "manifest.json", split) for split in ("train", "validation"))
    write_baselines(folder / "baselines.csv", train, validation, tiny.tokenizer())
    return folder


def test_a_terminal_shows_how_many_tokens_are_evaluated(corpus, tmp_path):
    folder = tiny.save_run(tmp_path)
    terminal, side = pty.openpty()
    termios.tcsetwinsize(side, (24, 80))
    files = {"checkpoint": folder / "checkpoints/best.safetensors", "tokenizer": folder / "model/tokenizer.json",
             "manifest": corpus / "manifest.json", "baselines": corpus / "baselines.csv",
             "output": folder / "evaluation.csv"}  # fmt: skip
    options = [f"--{name}={path}" for name, path in files.items()]
    program = [sys.executable, str(ROOT / "workflow/scripts/evaluate.py"), *options, "--stride-tokens=4"]
    process = subprocess.Popen([*program, "--device=cpu"], stderr=side)
    os.close(side)
    shown = b""
    with contextlib.suppress(OSError):  # as Linux ends a terminal that nobody writes to
        while block := os.read(terminal, 1000):
            shown += block
    os.close(terminal)
    assert process.wait(timeout=60) == 0
    with open(folder / "evaluation.csv") as file:
        tokens = int(next(csv.DictReader(file))["tokens"])
    assert b"[default] " in shown and f" {tokens}/{tokens}, ".encode() in shown


def test_evaluation_csv_compares_the_model_with_baselines_on_the_same_bytes(device, corpus):
    weights = tiny.place(device, tiny.MODEL, tiny.draw_arrays())
    train, validation = (open_split(corpus / "manifest.json", split) for split in ("train", "validation"))
    predictions = predict(device, tiny.MODEL, weights, validation, stride=4)
    predictions = replace(predictions, ranks=np.arange(len(predictions.ranks)) % 8)  # each rank is there
    texts, counts = [corpus / "train.txt", corpus / "validation.txt"], tiny.tokenizer().byte_counts
    tokenizer = tiny.tokenizer()
    write_evaluation(corpus / "evaluation.csv", predictions, corpus / "baselines.csv", tokenizer)

    written, of_baselines = ((corpus / f"{name}.csv").read_text() for name in ("evaluation", "baselines"))
    assert written.split("\n", 2)[2] == of_baselines.split("\n", 1)[1]
    header, *lines = csv.reader(written.splitlines())
    assert header == list(COLUMNS)
    rows = {line[0]: dict(zip(header, line, strict=True)) for line in lines}
    assert list(rows) == ["model", "unigram", "bigram", "trigram", "lzma"]
    for row in rows.values():
        assert int(row["bytes"]) == texts[1].stat().st_size
        assert row["predictor"] == "lzma" or int(row["tokens"]) == len(validation) - 1

    def figure(predictor: str, column: str) -> float:
        return float(rows[predictor][column])

    known, text = read_tokens(train, 10**6), read_tokens(validation, 10**6)
    nats = dict(zip(NGRAMS, ngram_losses(known, text, tiny.MODEL.vocab_size, 3), strict=True))
    for name, losses in {"model": predictions.nats, **nats}.items():
        mean = losses.mean(dtype=np.float64)
        expected = mean, math.exp(mean), bits_per_byte(losses, counts[text[1:]])
        assert [figure(name, column) for column in COLUMNS[1:4]] == pytest.approx(expected, rel=SEVEN_DIGITS)
    assert figure("model", "next_token_accuracy") == pytest.approx(
        np.isin(predictions.ranks, [0]).mean(), rel=SEVEN_DIGITS
    )
    assert figure("model", "top5_accuracy") == pytest.approx(
        np.isin(predictions.ranks, [0, 1, 2, 3, 4]).mean(), rel=SEVEN_DIGITS
    )
    expected = lzma_bits(*(text.read_bytes() for text in texts)) / texts[1].stat().st_size
    assert figure("lzma", "bits_per_byte") == pytest.approx(expected, rel=SEVEN_DIGITS)
    assert rows["lzma"]["loss_nats_per_token"] == rows["unigram"]["top5_accuracy"] == ""
