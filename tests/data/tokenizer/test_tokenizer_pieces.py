"""Pieces: windows of 64-byte blocks find what the definition says, on every pattern, any bytes, and on long runs."""

import re
import subprocess
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.spans import SPANS_OF_EVERY_KIND

from hipgpt.base.compiler import include_options
from hipgpt.base.compiler_answers import host_compiler
from hipgpt.data.tokenizer import native
from hipgpt.data.tokenizer.pretokenize import PATTERNS, split_pieces
from hipgpt.data.tokenizer.tokenizer import Tokenizer, train

WINDOW = native.LIMITS["WINDOW_BYTES"]
SPANS = [*SPANS_OF_EVERY_KIND, "'ll", "\udcff", "\udce2", "\udc80"]
spans = st.lists(st.tuples(st.sampled_from(SPANS), st.integers(1, 70)), max_size=40)
every_pattern = pytest.mark.parametrize("pattern", PATTERNS)


def joined(runs):
    return "".join(span * count for span, count in runs).encode("utf-8", "surrogateescape")


@every_pattern
@given(st.one_of(spans.map(joined), st.binary(max_size=300), st.text(max_size=200).map(lambda text: text.encode())))
def test_windows_and_one_by_one_give_the_pieces_of_the_reference(pattern, text):
    reference = list(split_pieces(text, pattern))
    assert native.pieces(text, pattern) == native.pieces(text, pattern, alone=True) == reference
    assert b"".join(reference) == text


@every_pattern
@given(st.integers(-70, 10), spans)
def test_the_end_of_a_window_cuts_nothing(pattern, place, runs):
    text = b"ab " * (WINDOW // 3 + place) + joined(runs) + b"x" * 100
    assert native.pieces(text, pattern) == native.pieces(text, pattern, alone=True)


@every_pattern
def test_every_code_point_between_others_gives_the_pieces_of_the_reference(pattern):
    for first in range(0, 0x110000, 0x8000):
        points = [c for c in range(first, first + 0x8000) if unicodedata.category(chr(c)) != "Cs"]
        text = "".join(f"a{chr(c)}b !{chr(c)}7 {chr(c)}\n" for c in points).encode()
        assert native.pieces(text, pattern) == native.pieces(text, pattern, alone=True)
        if first < 0x4000 or first == 0x1F000:
            assert native.pieces(text, pattern) == list(split_pieces(text, pattern))


@pytest.fixture(scope="module", params=PATTERNS)
def runs_tokenizer(request):
    text = b"".join(span.encode("utf-8", "surrogateescape") * 4096 + b"a.b" for span in SPANS)
    return train([text], 340, request.param)


def test_a_megabyte_of_one_thing_encodes_without_loss(runs_tokenizer):
    for span in [*SPANS, "ab", "a ", " \n", "\n ", "'s'", "<|endof"]:
        text = span.encode("utf-8", "surrogateescape")
        text *= (1 << 20) // len(text)
        assert runs_tokenizer.decode(runs_tokenizer.encode(text)) == text, ascii(span)


def test_a_line_of_ten_megabytes_that_steps_back_often_encodes_without_loss():
    # tokens whose longest match is mostly wrong: the next token decides against it
    tokenizer = train([b"aab" * 50 + b"\n" + b"abb" * 40 + b"\n" + b"aaab" * 30 + b"\n" + b"a" * 700], 290)
    letters = np.random.default_rng(0).integers(97, 99, 10 << 20, np.uint8).tobytes()
    assert tokenizer.decode(tokenizer.encode(letters)) == letters


def test_more_words_than_the_cache_holds_encode_as_before():
    tokenizer = Tokenizer(tuple((left, right) for left in b"0123456789" for right in b"0123456789"))
    words = b" ".join(b"%d" % number for number in range(1_300_000))
    ids = tokenizer.encode(words + b"\n" + words[-5000:])
    assert np.array_equal(ids[-len(tokenizer.encode(words[-4000:])) :], tokenizer.encode(words[-4000:]))
    assert tokenizer.decode(ids) == words + b"\n" + words[-5000:]


@pytest.mark.parametrize("options", [("-mno-avx512f", "-mavx2"), ("-mno-avx2", "-mno-avx512f")], ids=" ".join)
def test_blocks_without_wide_vectors_find_the_same(options, tmp_path):
    """The plain and the AVX2 form of simd_block.h against this machine's own, on every byte in every place."""
    if subprocess.run(["uname", "-m"], capture_output=True, text=True).stdout.strip() != "x86_64":
        pytest.skip("the forms of x86-64 are compiled on x86-64 only")
    if "-mavx2" in options and not re.search(r"\bavx2\b", Path("/proc/cpuinfo").read_text()):
        pytest.skip("this processor has no AVX2")
    program = tmp_path / "blocks.cpp"
    program.write_text(BLOCKS)
    subprocess.run(
        [*host_compiler(), "-std=c++17", "-O2", *options, *include_options(), program, "-o", tmp_path / "blocks"],
        check=True,
    )
    assert subprocess.run([tmp_path / "blocks"]).returncode == 0


BLOCKS = """#include "bpe/simd_block.h"
int main() {
    char text[64];
    for (int byte = 0; byte < 256; ++byte)
        for (int at = 0; at < 64; ++at) {
            std::memset(text, byte ^ 0x41, 64);
            text[at] = static_cast<char>(byte);
            const bpe::Block block(text);
            const auto bit = [&](int i, bool expected, uint64_t bits) { return (bits >> i & 1) == expected; };
            for (int i = 0; i < 64; ++i) {
                const unsigned char c = static_cast<unsigned char>(text[i]);
                if (!bit(i, c == ' ', block.equal(' ')) || !bit(i, c >= 0x80, block.not_ascii())) return 1;
                if (!bit(i, c >= 9 && c <= 13, block.within(9, 13))) return 2;
                if (!bit(i, (c | 32) >= 'a' && (c | 32) <= 'z', block.within('a', 'z', 32))) return 3;
            }
        }
}
"""
