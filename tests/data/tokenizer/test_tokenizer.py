"""The tokenizer: the native code equals the readable reference, no byte is lost, Hugging Face gives the same ids."""

import dataclasses
import doctest
import io
import sys
import unicodedata
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hipgpt.base.errors import UserError
from hipgpt.data.tokenizer import reference as bpe
from hipgpt.data.tokenizer.chunks import next_cut, text_chunks
from hipgpt.data.tokenizer.pretokenize import (
    CLASS_TABLE_SIZE,
    END_OF_TEXT,
    LETTER,
    NUMBER,
    OTHER,
    PATTERNS,
    SPACE,
    WHITE_SPACE,
    class_table,
    split_pieces,
    symbol_class,
)
from hipgpt.data.tokenizer.tokenizer import Tokenizer, train

END = END_OF_TEXT.encode()
ENGLISH = """It's the lark's song; they'll say we've 1,000 larks, I'm told. \t\n\n  Don't you'd 're   think so?
Été naïve 你好\u3000世界 😀!! the the the lark larks\n""".encode()
HOSTILE = [
    ENGLISH,
    b"",
    b" ",
    b"'",
    b"a" * 33,
    b"  a   b \n\n\tc  ",
    b"x's't're've'm'll'd'S'T'RE'VE'M'LL'D 'tis ''s!'s 're 'l 'v",
    b"\x00\x1c\x1d\x1e\x1f\x7f",
    b"\xff\xfe\x80\x80 \xc3",  # stray bytes, a sequence cut short
    b"\xc0\x80 \xc1\xa1b \xc0\xa0 \xe0\x81\xa1c\xf0\x80\x80\xa0",  # overlong: NUL, letters, spaces
    b"\xed\xa0\x80\xed\xbf\xbf",  # surrogates
    b"\xf4\x90\x80\x80\xf5\x80\x80\x80\xf8",  # above U+10FFFF
    b"\xe2\x80 \xf0\x9f\x98 \xe2\x80\x83a\xc2\x85b\xc2\xa0 c",
    "e\u0301 \u0661\u0662 \u2163\u00bd \U000e0100\U0001d7ce\U0003134f\U0010ffff".encode(),
    END + END + b" a" + END[:-1] + END + b"   " + END + b"<|endof" + b"text|>",
]
FRAGMENTS = [b" ", b"  ", b"\n", b"'", b"'s", b"'ll", b"a", b"ab", b"7", b"!", END, END[:5], END[5:], b"\xc2", b"\x85"]
FRAGMENTS += [b"\xc2\xa0", b"\xe2\x80", b"\x83", "é".encode(), "你".encode(), "\u3000".encode(), "😀".encode(), b"\xff"]

any_time = settings(deadline=None)  # the first example may have to compile the library and build the class table
texts = st.one_of(
    st.binary(max_size=60),
    st.text(max_size=40).map(str.encode),
    st.lists(st.sampled_from(FRAGMENTS), max_size=25).map(b"".join),
)


def as_many_as(text, most):
    """Return the tokenizer of the text, with up to `most` merges."""
    return train([text], len(bpe.train(text, most + 257)) + 257)


@pytest.fixture(scope="module")
def english():
    return train([ENGLISH], 330)


@pytest.fixture(scope="module")
def every_pair():
    """A tokenizer in which any two bytes merge, so that the ids show where the pieces begin and end."""
    return Tokenizer(tuple((left, right) for left in range(256) for right in range(256)))


def test_worked_example_in_the_reference_is_true():
    result = doctest.testmod(bpe)
    assert result.attempted > 0
    assert result.failed == 0


def test_worked_example_in_pretokenize_is_true():
    assert list(split_pieces(b"I'll  say 42!\n")) == [b"I", b"'ll", b" ", b" say", b" 42", b"!", b"\n"]


@any_time
@given(texts, texts)
def test_native_training_equals_the_reference(first, second):
    text = first + b" " + second + first
    reference = bpe.train(text, 257 + 12)
    assert list(train([text], 257 + len(reference)).merges) == reference


@any_time
@given(st.lists(st.tuples(st.text("abc", min_size=1, max_size=8), st.integers(1, 9)), max_size=12))
def test_native_training_equals_the_reference_on_overlaps_and_ties(words):
    text = " ".join(word for word, count in words for _ in range(count)).encode()
    reference = bpe.train(text, 257 + 40)
    assert list(train([text], 257 + len(reference)).merges) == reference


def test_native_training_skips_a_pair_that_has_since_merged_with_others():
    # In "abcb", (a, b) becomes (a, bc), then abc. When (a, b) is merged later, abc precedes b there.
    text = b"bc\n" * 9 + b"abc\n" * 9 + b"abcb\n" * 5 + b"ab\n" * 7
    assert list(train([text], 261).merges) == bpe.train(text, 261) == [(98, 99), (97, 256), (97, 98), (257, 98)]


@any_time
@given(texts)
def test_native_encoding_equals_the_reference(english, text):
    assert english.encode(text).tolist() == bpe.encode(text, list(english.merges))


@any_time
@given(texts)
def test_native_encoding_equals_the_reference_with_merges_of_the_text_itself(text):
    tokenizer = as_many_as(text * 2, 20)
    assert tokenizer.encode(text).tolist() == bpe.encode(text, list(tokenizer.merges))


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_native_equals_the_reference_on_hostile_text(text, english, every_pair):
    assert english.encode(text).tolist() == bpe.encode(text, list(english.merges))
    assert every_pair.encode(text).tolist() == bpe.encode(text, list(every_pair.merges))
    reference = bpe.train(text, 257 + 30)
    assert list(as_many_as(text, 30).merges) == reference


def test_classes_are_those_of_unicode():
    kinds = {"L": LETTER, "N": NUMBER}
    expected = [kinds.get(unicodedata.category(chr(code_point))[0], OTHER) for code_point in range(CLASS_TABLE_SIZE)]
    for code_point in WHITE_SPACE:
        expected[code_point] = SPACE
    assert list(class_table()) == expected


def test_native_equals_the_reference_on_both_sides_of_every_change_of_class(every_pair):
    table = class_table()
    edges = [
        0x7F,
        0x80,
        0x7FF,
        0x800,
        0xD7FF,
        0xE000,
        0xFFFF,
        0x10000,
        CLASS_TABLE_SIZE - 1,
        CLASS_TABLE_SIZE,
        0x10FFFF,
    ]
    edges += [c - i for c in range(1, CLASS_TABLE_SIZE) if table[c] != table[c - 1] for i in (0, 1)]
    text = "".join(f"a{chr(c)}1{chr(c)}!{chr(c)}\n{chr(c)} " for c in edges).encode()
    assert every_pair.encode(text).tolist() == bpe.encode(text, list(every_pair.merges))


@any_time
@given(texts)
def test_encoding_any_bytes_loses_nothing(english, text):
    ids = english.encode(text)
    assert english.decode(ids) == text
    assert english.byte_counts[ids].sum() == len(text) - len(END) * text.count(END)


@any_time
@given(st.text(st.characters(), max_size=30))
def test_a_string_is_encoded_as_its_utf8_even_with_lone_surrogates(english, text):
    assert english.decode(english.encode(text)).decode("utf-8", "surrogatepass") == text


@pytest.mark.parametrize("pattern", PATTERNS)
@any_time
@given(texts, st.integers(1, 20))
def test_encoding_chunks_equals_encoding_the_whole(pattern, text, chunk_bytes):
    tokenizer = Tokenizer(tuple((left, right) for left in range(256) for right in range(256)), pattern)
    chunks = list(text_chunks(io.BytesIO(text), chunk_bytes))
    assert b"".join(chunks) == text
    ids = [tokenizer.encode(chunk) for chunk in chunks]
    assert np.array_equal(np.concatenate([*ids, np.empty(0, np.uint32)]), tokenizer.encode(text))


# White space of one, two and three bytes next to each other, to their own stray bytes, letters and other symbols.
AROUND_CUTS = [*" \n\r\t7\x85\xa0\u2003\u3000aé你!", "'s", "\udcc2", "\udc85", "\udce2", "\udc80"]
around_cuts = st.lists(st.sampled_from(AROUND_CUTS))


@pytest.mark.parametrize("pattern", PATTERNS)
@any_time
@given(around_cuts)
def test_pieces_left_and_right_of_a_cut_are_the_pieces_of_the_whole(pattern, fragments):
    text = "".join(fragments).encode("utf-8", "surrogateescape")
    for offset in range(len(text) + 2):
        cut = next_cut(text, offset)
        assert min(offset, len(text)) <= cut <= len(text)
        both = [*split_pieces(text[:cut], pattern), *split_pieces(text[cut:], pattern)]
        assert both == list(split_pieces(text, pattern))


@any_time
@given(st.lists(st.sampled_from(["<a b>", "<a\nb>", "\n<", "<a", "b>", "a", " ", "\n"])), st.integers(1, 8))
def test_no_cut_divides_a_special_token_that_holds_white_space(fragments, chunk_bytes):
    specials = tuple((content, 256 + index) for index, content in enumerate(["<a b>", "<a\nb>", "\n<"]))
    tokenizer = Tokenizer((), specials=specials)
    text = "".join(fragments).encode()
    cuts = [0]
    while cuts[-1] < len(text):
        cuts.append(next_cut(text, cuts[-1] + chunk_bytes, tokenizer.undivided))
    ids = [tokenizer.encode(text[begin:end]) for begin, end in pairwise(cuts)]
    assert np.array_equal(np.concatenate([*ids, np.empty(0, np.uint32)]), tokenizer.encode(text))


def test_chunks_of_ordinary_text_are_about_as_long_as_asked():
    chunks = list(text_chunks(io.BytesIO(ENGLISH * 50), 500))
    assert max(map(len, chunks)) <= 1000
    assert len(chunks) >= len(ENGLISH) * 50 / 600


@any_time
@given(st.lists(texts, max_size=5), st.integers(1, 30), st.integers(1, 3))
def test_training_depends_neither_on_the_chunks_nor_on_the_threads(parts, chunk_bytes, threads):
    text = b" ".join([ENGLISH, *parts])
    assert train(text_chunks(io.BytesIO(text), chunk_bytes), 300, threads=threads) == train([text], 300)


def test_ties_between_counts_go_to_the_smallest_pair_of_ids():
    assert train([b"zy xw\nba"], 258).merges == ((ord(" "), ord("x")),)
    assert train([b"zy\nxw\nba\nbc"], 260).merges == ((98, 97), (98, 99), (120, 119))


def test_end_of_text_divides_words_in_training_and_is_never_learned():
    text = (b"ab" + END + b"cd" + END) * 9
    assert train([text], 259).merges == ((97, 98), (99, 100))
    with pytest.raises(UserError, match="gives 2 merges"):
        train([text], 260)


@pytest.mark.parametrize("nfc", [False, True])
def test_ordinary_encoding_knows_no_special_tokens(english, nfc):
    tokenizer = dataclasses.replace(english, nfc=nfc)
    texts = ["e\u0301 <|endoftext|> b".encode(), b"", END]
    found = tokenizer.encode_ordinary(texts)
    assert all(tokenizer.end_of_text not in ids for ids in found)
    expected = [unicodedata.normalize("NFC", text.decode()).encode() if nfc else text for text in texts]
    assert [tokenizer.decode(ids) for ids in found] == expected
    assert tokenizer.encode_ordinary([]) == []


def test_end_of_text_in_a_text_is_the_last_id(english):
    assert english.end_of_text == english.vocab_size - 1 == 329
    assert english.encode(END_OF_TEXT).tolist() == [329]
    assert english.encode(b"a" + END + END).tolist() == [97, 329, 329]
    assert english.token_bytes(329) == END
    assert english.byte_counts[329] == 0


def test_a_long_run_of_one_letter_encodes_by_its_merges():
    tokenizer = train([b"a" * 1024], 257 + 10)
    assert [tokenizer.token_bytes(token) for token in (256, 265)] == [b"a" * 2, b"a" * 1024]
    ids = tokenizer.encode(b"a" * ((1 << 20) + 3))
    assert ids.tolist() == [265] * 1024 + [256, 97]


few_letters = st.text("abc", max_size=9)


@settings(max_examples=40, deadline=None)
@given(few_letters, st.text("abc", min_size=1, max_size=7), few_letters, few_letters, st.integers(0, 6000))
def test_a_long_word_that_repeats_itself_encodes_as_the_reference_does(head, repeated, middle, tail, size):
    learned_from = " ".join([head, repeated * 12, middle, repeated * 3 + tail])
    tokenizer = as_many_as(learned_from.encode(), 20)
    word = head + repeated * (size // len(repeated)) + middle + repeated * (4096 // len(repeated)) + tail
    assert tokenizer.encode(word).tolist() == bpe.encode(word.encode(), list(tokenizer.merges))


def test_a_long_word_of_many_letters_encodes_without_loss(english):
    text = bytes(np.random.default_rng(0).integers(97, 123, 1 << 20, np.uint8))
    ids = english.encode(text)
    assert english.decode(ids) == text
    assert len(ids) < len(text)


def test_more_distinct_words_than_the_cache_holds_encode_as_before(english):
    letters = bytes.maketrans(b"0123456789abcdef", b"abcdefghijklmnop")
    words = b" ".join(b"%x" % number for number in range(1 << 19)).translate(letters)
    tail = english.encode(words[-5000:])
    assert english.decode(english.encode(words)) == words
    assert np.array_equal(english.encode(words[-5000:]), tail)


def test_a_vocabulary_that_the_text_cannot_give_is_refused_with_what_it_can_give():
    with pytest.raises(UserError, match=r"got 300, but this text gives 2 merges, so at most 259"):
        train([b"abab"], 300)
    assert train([b"abab"], 259).vocab_size == 259


def test_a_text_without_words_gives_no_merges():
    with pytest.raises(UserError, match=r"gives 0 merges, so at most 257"):
        train([], 258)
    assert train([], 257).merges == ()


@pytest.mark.parametrize("vocab_size", [256, 0, -1])
def test_a_vocabulary_smaller_than_the_bytes_is_refused(vocab_size):
    with pytest.raises(UserError, match=f"got {vocab_size}, expected at least 257"):
        train([b"abab"], vocab_size)


@pytest.mark.parametrize("wrong", [-1, 330])
def test_decoding_an_id_outside_the_vocabulary_is_refused(wrong, english):
    with pytest.raises(UserError, match=f"got id {wrong}, expected 0 to 329"):
        english.decode([97, wrong])


def test_a_saved_tokenizer_loads_as_an_equal_one_with_equal_bytes(english, tmp_path):
    english.save(tmp_path / "a.json")
    loaded = Tokenizer.load(tmp_path / "a.json")
    loaded.save(tmp_path / "b.json")
    assert loaded == english
    assert loaded.sha256 == english.sha256
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_white_space_is_unicodes_property_and_not_pythons_isspace():
    assert {symbol_class(c) for c in "\t\n\v\f\r \x85\xa0\u2028\u3000"} == {SPACE}
    assert {symbol_class(c) for c in "\x1c\x1d\x1e\x1f\u180e\u200b\ufeff"} == {OTHER}


def test_letters_and_numbers_are_unicodes_general_categories():
    assert {symbol_class(c) for c in "aé你ª"} == {LETTER}
    assert {symbol_class(c) for c in "7½Ⅳ²"} == {NUMBER}
    assert {symbol_class(c) for c in "_\u0301😀\x00"} == {OTHER}


def test_no_letter_number_or_white_space_lies_above_the_class_table():
    above = map(chr, range(CLASS_TABLE_SIZE, sys.maxunicode + 1))
    assert not any(c.isalpha() or c.isnumeric() or c.isspace() for c in above)
