"""Sampling: the cache does not change the result, a seed fixes the text, and each setting has its documented effect."""

import csv
import gc
import io
import weakref
from dataclasses import astuple, fields, replace
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import tiny
from support.host_draws import drawn_by_the_host

from hipgpt.compute.open_device import open_device
from hipgpt.config.settings import SamplingConfig
from hipgpt.gpt.decoder import MOST_CACHE_BYTES, MOST_SEQUENCES, STEPS_OF_PLAN, Decoder, sequences_together
from hipgpt.inference.reference import probabilities
from hipgpt.inference.samples import write_samples
from hipgpt.inference.sampling import generate_all, generate_one

T, END = tiny.MODEL.context_length, tiny.MODEL.vocab_size - 1
PLAIN = SamplingConfig(num_tokens=20, stop_at_end_of_text=False)
LOGITS = st.lists(st.sampled_from([-3.5, -1.0, 0.0, 0.25, 2.0, 7.0]), min_size=1, max_size=12).map(np.float32)


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    device = open_device("cpu", threads=2)
    return Decoder(device, tiny.MODEL, tiny.place(device, tiny.MODEL, tiny.draw_arrays()))


def continued(decoder: Decoder, prompt: list[int], sampling: SamplingConfig = PLAIN, stream: int = 0) -> list[int]:
    return list(generate_one(decoder, prompt, sampling, END, stream))


@pytest.mark.parametrize("changes", [{}, {"tie_embeddings": True, "output_bias": False, "activation": "relu"}])
def test_cached_decoding_equals_the_pass_over_the_whole_window(device, changes):
    model = replace(tiny.MODEL, **changes)
    arrays = tiny.draw_arrays(model)
    weights = tiny.place(device, model, arrays)
    decoder, lengths = Decoder(device, model, weights), []
    for token in np.random.default_rng(0).integers(model.vocab_size, size=2 * T + 2).tolist():
        decoder.append([token])
        window = list(decoder.windows[0])
        lengths.append(len(window))
        assert window[-1] == token
        whole = tiny.network_logits(device, model, weights, window)[-1]
        expected = tiny.logits(model, arrays, window)[-1]
        assert expected.error.max() < 1e-3 * np.ptp(expected.value)
        assert (np.abs(whole - expected.value) <= expected.error).all()
        assert (np.abs(decoder.logits()[0] - whole) <= 2 * expected.error).all()
    half = T // 2
    assert lengths == [*range(1, T + 1), *range(half, T + 1), *range(half, T + 1)]


@pytest.mark.parametrize("model", [tiny.LLAMA, tiny.QWEN3], ids=lambda model: model.architecture)
def test_rotary_decoding_slides_past_the_context(device, model):
    arrays = tiny.draw_arrays(model)
    weights = tiny.place(device, model, arrays)
    decoder, tokens = Decoder(device, model, weights), []
    for token in np.random.default_rng(0).integers(model.vocab_size, size=2 * T + 2).tolist():
        decoder.append([token])
        tokens.append(token)
        assert list(decoder.windows[0]) == tokens[-T:]
        expected = tiny.logits(model, arrays, tokens)[-1]
        assert expected.error.max() < 1e-2 * np.ptp(expected.value)
        assert (np.abs(decoder.logits()[0] - expected.value) <= expected.error).all()
        if len(tokens) <= T:
            whole = tiny.network_logits(device, model, weights, tokens)[-1]
            assert (np.abs(whole - expected.value) <= expected.error).all()


@pytest.mark.parametrize("token", [-1, 300, 65535])
def test_a_token_that_the_vocabulary_lacks_is_refused(decoder, token):
    with pytest.raises(ValueError, match=f"token: got the id {token}, expected 0 to 299"):
        decoder.append([token])


@pytest.mark.parametrize("model", [tiny.MODEL, tiny.LLAMA, tiny.QWEN3], ids=lambda model: model.architecture)
def test_sequences_of_any_lengths_are_continued_together(device, model):
    """Beginnings are read in one pass for each length; then each sequence fills its context at another time."""
    arrays = tiny.draw_arrays(model)
    decoder = Decoder(device, model, tiny.place(device, model, arrays), sequences=5)
    random = np.random.default_rng(0)
    texts = [random.integers(model.vocab_size, size=size).tolist() for size in (T, 1, T // 2 + 1, 3 * T, 2)]
    decoder.restart(texts)
    texts = [text[-T:] for text in texts]
    for _ in range(T + 2):
        for text, window, logits in zip(texts, decoder.windows, decoder.logits(), strict=True):
            seen = text if model.parts.rotary else list(window)
            expected = tiny.logits(model, arrays, seen)[-1]
            assert list(window) == text[-len(window) :]
            assert (np.abs(logits - expected.value) <= expected.error).all()
        (tokens,) = decoder.draw()
        assert tokens == [window[-1] for window in decoder.windows]
        texts = [[*text, token] for text, token in zip(texts, tokens, strict=True)]


def test_many_texts_are_continued_as_alone(decoder):
    prompts = [[5], [9, 8, 7], list(range(T)), [11, 2]]
    several = Decoder(decoder.device, tiny.MODEL, tiny.place(decoder.device, tiny.MODEL, tiny.draw_arrays()), 3)
    together = list(generate_all(several, prompts, PLAIN, END))
    assert together == [continued(decoder, prompt, stream=stream) for stream, prompt in enumerate(prompts)]


def test_no_more_texts_are_continued_together_than_their_caches_allow():
    assert [sequences_together(tiny.MODEL, texts) for texts in (1, 7, 1000)] == [1, 7, MOST_SEQUENCES]
    long = replace(tiny.LLAMA, context_length=1 << 20, num_layers=32)
    cache = 2 * 32 * 4 * (1 << 20) * long.num_heads * long.head_channels
    assert sequences_together(long, 1000) == max(1, MOST_CACHE_BYTES // cache) < MOST_SEQUENCES


@pytest.mark.parametrize("texts", [[[1], [2]], [[]], []])
def test_texts_must_be_as_many_as_the_sequences_and_not_empty(decoder, texts):
    with pytest.raises(ValueError, match=r"texts: got \[.*\] tokens, expected 1 times >= 1"):
        decoder.restart(texts)


WAYS = [
    {"temperature": 0.0}, {}, {"temperature": 0.7, "top_k": 20}, {"top_p": 0.8}, {"temperature": 2.0, "top_k": 1},
    {"temperature": 1.5, "top_k": 100, "top_p": 0.6, "repetition_penalty": 1.3, "seed": 2**64 - 1},
    {"temperature": 0.0, "repetition_penalty": 3.0},
]  # fmt: skip


@pytest.mark.parametrize("model", [tiny.MODEL, tiny.LLAMA], ids=lambda model: model.architecture)
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_the_device_draws_as_the_host_would(device, model, way):
    """A draw within the rounding of f32 of a border between two tokens could differ; these texts have none."""
    sampling = SamplingConfig(1, **way)
    decoder = Decoder(device, model, tiny.place(device, model, tiny.draw_arrays(model)), sequences=2)
    decoder.restart([[END - 1], [3, 1, 4]])
    decoder.sample_by(sampling, stream=7)
    for number in range(T + 3):
        host = [
            drawn_by_the_host(logits, window, sampling, 7 + b, number)
            for b, (logits, window) in enumerate(zip(decoder.logits(), decoder.windows, strict=True))
        ]
        assert decoder.draw() == [[window[-1] for window in decoder.windows]] == [host]


@pytest.mark.parametrize("model", [tiny.MODEL, tiny.LLAMA], ids=lambda model: model.architecture)
def test_steps_without_a_wait_draw_the_same_tokens(device, model):
    """Also if the context fills up meanwhile, and if the caller reads a token in between."""
    one, ahead = (
        Decoder(device, model, tiny.place(device, model, tiny.draw_arrays(model)), sequences=2) for _ in range(2)
    )
    texts: list[list[list[int]]] = [[], []]
    for decoder, text, steps in zip((one, ahead), texts, (1, 5), strict=True):
        decoder.restart([[2], [3, 1, 4]])
        decoder.sample_by(SamplingConfig(1, top_k=30, repetition_penalty=1.2))
        for _ in range(2):
            end = len(text) + T + 2
            while len(text) < end:
                text += decoder.draw(min(steps, end - len(text)))
            decoder.append([5, 6])
    assert texts[0] == texts[1]
    assert [list(window) for window in one.windows] == [list(window) for window in ahead.windows]


def test_a_prompt_longer_than_the_context_counts_by_its_last_tokens(decoder):
    long = list(range(3, 3 + 3 * T))
    assert continued(decoder, long) == continued(decoder, long[-T:])


def test_an_empty_prompt_begins_a_document(decoder):
    assert continued(decoder, []) == continued(decoder, [END])


def test_the_seed_and_the_stream_decide_the_text(decoder):
    base = continued(decoder, [1, 2])
    assert len(base) == 20
    assert continued(decoder, [1, 2]) == base
    assert continued(decoder, [1, 2], replace(PLAIN, seed=2)) != base
    assert continued(decoder, [1, 2], stream=1) != base


def test_a_shorter_continuation_is_the_beginning_of_a_longer_one(decoder):
    assert continued(decoder, [1, 2], replace(PLAIN, num_tokens=5)) == continued(decoder, [1, 2])[:5]


def test_temperature_zero_takes_the_greedy_token_whatever_the_seed(decoder):
    greedy = [continued(decoder, [5], replace(PLAIN, temperature=0, seed=seed)) for seed in (1, 2)]
    decoder.restart([[5]])
    for token in greedy[0]:
        assert token == decoder.logits().argmax()
        decoder.append([token])
    assert greedy[0] == greedy[1]


def test_draws_follow_the_distribution(decoder):
    one = replace(PLAIN, num_tokens=1, top_k=5)
    decoder.restart([[7]])
    expected = probabilities(decoder.logits()[0], [7], one)
    draws = [next(generate_one(decoder, [7], one, END, stream)) for stream in range(4000)]
    counts = np.bincount(draws, minlength=len(expected))
    # Hoeffding: the error of a token's share exceeds `off` with probability 2 exp(-2 n off^2), for all five 1e-9
    off = np.sqrt(np.log(2 * 5 / 1e-9) / (2 * len(draws)))
    assert (counts > 0).sum() == (expected > 0).sum() == 5
    assert np.abs(counts / len(draws) - expected).max() < off


@pytest.mark.parametrize("model", [tiny.MODEL, tiny.LLAMA], ids=lambda model: model.architecture)
def test_many_draws_at_once_are_those_of_single_steps(device, model):
    def drawn(steps):
        decoder, found = Decoder(device, model, tiny.place(device, model, tiny.draw_arrays(model))), []
        decoder.restart([[3, 1]])
        decoder.sample_by(replace(PLAIN, temperature=0.9), stream=4)
        while len(found) < 3 * T:
            found += decoder.draw(min(steps, 3 * T - len(found)))
        return found

    assert drawn(3 * T) == drawn(1)


def test_a_share_that_is_zero_in_f32_leaves_the_greedy_token(decoder):
    assert continued(decoder, [5], replace(PLAIN, top_p=1e-46)) == continued(
        decoder, [5], replace(PLAIN, temperature=0)
    )


def test_a_decoder_is_freed_with_its_last_name():
    """A cycle would keep its memory on the device until a collection of garbage, at a moment of Python's choice."""
    device = open_device("cpu", threads=1)
    decoder = Decoder(device, tiny.MODEL, tiny.place(device, tiny.MODEL, tiny.draw_arrays()))
    decoder.restart([[1]])
    decoder.draw(STEPS_OF_PLAN)
    reference = weakref.ref(decoder)
    gc.disable()
    del decoder
    gc.enable()
    assert reference() is None


class Counting:
    """Two sequences that count 0, 1, 2, ... and stay at 3, the second one from 2 on."""

    sequences = 2
    device = SimpleNamespace(traits=SimpleNamespace(shares_host_memory=False))

    def restart(self, texts):
        self.counts = [0, 2]

    def sample_by(self, sampling, stream):
        pass

    def draw(self, steps) -> list[list[int]]:
        first, self.counts = self.counts, [count + steps for count in self.counts]
        return [[min(3, count + step) for count in first] for step in range(steps)]


def test_end_of_text_ends_a_continuation_and_is_not_part_of_it():
    sampling = SamplingConfig(num_tokens=6)
    assert list(generate_all(Counting(), [[0], [0]], sampling, end_of_text=3)) == [[0, 1, 2], [2]]
    endless = replace(sampling, stop_at_end_of_text=False)
    assert list(generate_all(Counting(), [[0], [0]], endless, 3)) == [[0, 1, 2, 3, 3, 3], [2, 3, 3, 3, 3, 3]]


@pytest.mark.parametrize(
    ("is_cpu", "longest_wait", "steps"),
    [
        (False, float("inf"), [16, 32, 64, 38]),
        (False, 0, [*[16] * 9, 6]),
        (True, float("inf"), [1, 2, 4, 8, 16, 32, 64, 23]),
        (True, 0, [1] * 150),
    ],
)
def test_a_fast_device_runs_further_ahead_but_never_too_far(monkeypatch, is_cpu, longest_wait, steps):
    asked, counting = [], Counting()
    monkeypatch.setattr(counting.device.traits, "shares_host_memory", is_cpu)
    monkeypatch.setattr(Counting, "draw", lambda self, steps: asked.append(steps) or [[0, 0]] * steps)
    monkeypatch.setattr("hipgpt.inference.sampling.WAIT", longest_wait)
    list(generate_all(counting, [[0], [0]], SamplingConfig(num_tokens=150, stop_at_end_of_text=False), END))
    assert asked == steps


def test_no_more_is_drawn_when_each_continuation_is_enough():
    sampling, decoder = SamplingConfig(num_tokens=10**9, stop_at_end_of_text=False), Counting()
    found = list(generate_all(decoder, [[0], [0]], sampling, 3, lambda tokens: tokens[-1] == 3))
    assert found == [[0, 1, 2, 3], [2, 3, 3, 3]] and max(decoder.counts) < 100


def test_tokens_come_as_they_are_drawn(decoder):
    endless = generate_one(decoder, [1], replace(PLAIN, num_tokens=10**9), END)
    assert list(islice(endless, 3)) == continued(decoder, [1])[:3]


@settings(deadline=None)
@given(LOGITS, st.floats(0, 5), st.none() | st.integers(1, 14), st.floats(0.01, 1), st.floats(0.1, 5), st.data())
def test_probabilities_sum_to_one_over_no_more_than_top_k_tokens(logits, temperature, top_k, top_p, penalty, data):
    context = data.draw(st.lists(st.integers(0, len(logits) - 1), max_size=5))
    found = probabilities(logits, context, SamplingConfig(1, temperature, top_k, top_p, penalty))
    assert found.shape == logits.shape and (found >= 0).all()
    assert found.sum() == pytest.approx(1, rel=len(logits) * 2**-52)
    assert np.count_nonzero(found) <= (top_k or len(logits))


@settings(deadline=None)
@given(LOGITS, st.floats(0.05, 5), st.none() | st.integers(1, 14), st.floats(0.01, 1))
def test_a_more_probable_token_is_never_left_out_before_a_less_probable_one(logits, temperature, top_k, top_p):
    found = probabilities(logits, [], SamplingConfig(1, temperature, top_k, top_p))
    by_logit_then_id = sorted(range(len(logits)), key=lambda token: (-logits[token], token))
    assert (np.diff(found[by_logit_then_id]) <= 0).all()


@settings(deadline=None)
@given(LOGITS, st.floats(0.05, 5), st.integers(1, 12))
def test_top_k_keeps_k_tokens_and_their_proportions(logits, temperature, top_k):
    everything = probabilities(logits, [], SamplingConfig(1, temperature))
    found = probabilities(logits, [], SamplingConfig(1, temperature, top_k))
    kept = sorted(range(len(logits)), key=lambda token: (-logits[token], token))[:top_k]
    assert set(np.flatnonzero(found)) <= set(kept)
    assert found[kept] == pytest.approx(everything[kept] / everything[kept].sum(), rel=1e-12)


@settings(deadline=None)
@given(LOGITS, st.floats(0.5, 5), st.floats(0.01, 0.99))
def test_top_p_keeps_the_fewest_tokens_that_reach_it(logits, temperature, top_p):
    everything = probabilities(logits, [], SamplingConfig(1, temperature))
    kept = np.flatnonzero(probabilities(logits, [], SamplingConfig(1, temperature, top_p=top_p)))
    rounding = len(logits) * 2**-52
    assert everything[kept].sum() >= top_p - rounding
    assert everything[kept].sum() - everything[kept].min() < top_p + rounding


@settings(deadline=None)
@given(LOGITS, st.floats(1, 5), st.data())
def test_a_repetition_penalty_lowers_the_tokens_of_the_context_alone(logits, penalty, data):
    context = data.draw(st.lists(st.integers(0, len(logits) - 1), max_size=5))
    found = probabilities(logits, context, SamplingConfig(1, repetition_penalty=penalty))
    scores = np.array(
        [x if i not in context else x / penalty if x > 0 else x * penalty for i, x in enumerate(logits.tolist())]
    )
    assert found == pytest.approx(np.exp(scores) / np.exp(scores).sum(), rel=1e-12)


def test_ties_between_logits_go_to_the_lower_id():
    logits = np.array([0, 1, 1, 0, 1, 1], np.float32)
    for options, kept in (({"top_k": 3}, [1, 2, 4]), ({"top_k": 5}, [0, 1, 2, 4, 5]), ({"temperature": 0}, [1])):
        assert np.flatnonzero(probabilities(logits, [], SamplingConfig(1, **options))).tolist() == kept
    nearly_flat = SamplingConfig(1, temperature=1e9, top_p=0.6)
    assert np.flatnonzero(probabilities(logits, [], nearly_flat)).tolist() == [1, 2, 4, 5]


PROMPTS = ["Enter", "to be, or", "élan 語", 'a "quoted", one']
SECTION = {"prompts": PROMPTS, **{field.name: getattr(PLAIN, field.name) for field in fields(PLAIN)}}


def test_samples_csv_gives_back_prompts_continuations_and_settings(decoder, tmp_path):
    write_samples(decoder, tiny.tokenizer(), SECTION, tmp_path / "samples.txt", tmp_path / "samples.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "samples.csv").read_text(encoding="utf-8"), newline="")))
    for number, (row, prompt) in enumerate(zip(rows, PROMPTS, strict=True)):
        tokens = continued(decoder, tiny.tokenizer().encode(prompt).tolist(), stream=number)
        expected = [number, prompt, tiny.tokenizer().decode(tokens).decode("utf-8", "replace"), 20, *astuple(PLAIN)]
        assert list(row.values()) == ["" if value is None else str(value) for value in expected]
        assert f"--- prompt {number}\n{prompt}" in (tmp_path / "samples.txt").read_text(encoding="utf-8")


def test_a_prompt_s_text_stays_when_prompts_are_added(decoder, tmp_path):
    found = []
    for count in (2, 4):
        section = {**SECTION, "prompts": PROMPTS[:count]}
        write_samples(decoder, tiny.tokenizer(), section, tmp_path / "samples.txt", tmp_path / "samples.csv")
        found.append((tmp_path / "samples.txt").read_text(encoding="utf-8"))
    assert found[1].startswith(found[0])
