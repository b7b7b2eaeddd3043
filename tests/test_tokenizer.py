"""The tokenizer's claims: native equals the readable reference, no byte is lost, HF gives the same ids."""

import doctest
import io
import json
import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hipgpt.errors import UserError
from hipgpt.tokenizer import END_OF_TEXT, Tokenizer, bpe, formats, next_cut, text_chunks, train
from hipgpt.tokenizer.pretokenize import (
    CLASS_TABLE_SIZE,
    LETTER,
    NUMBER,
    OTHER,
    SPACE,
    class_table,
    split_pieces,
    symbol_class,
)

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

any_time = settings(deadline=None)  # the first example may compile the library and build the class table
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


def write_with(path, change):
    """Write the English tokenizer's tokenizer.json with one thing changed; return its path."""
    document = formats.tokenizer_document(list(train([ENGLISH], 330).merges))
    change(document)
    path.write_text(json.dumps(document))
    return path


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


def test_native_training_passes_over_a_pair_that_has_merged_otherwise_since():
    # In "abcb", (a, b) becomes (a, bc), then abc: when (a, b) is merged later, abc stands before b there.
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


@any_time
@given(texts, st.integers(1, 20))
def test_encoding_chunks_equals_encoding_the_whole(english, text, chunk_bytes):
    chunks = list(text_chunks(io.BytesIO(text), chunk_bytes))
    assert b"".join(chunks) == text
    ids = [english.encode(chunk) for chunk in chunks]
    assert np.array_equal(np.concatenate([*ids, np.empty(0, np.uint32)]), english.encode(text))


# White space of one, two and three bytes beside each other, beside their own stray bytes, letters and other symbols.
around_cuts = st.lists(st.sampled_from([*" \n\x85\xa0\u2003\u3000aé你!", "'s", "\udcc2", "\udc85", "\udce2", "\udc80"]))


@any_time
@given(around_cuts)
def test_pieces_left_and_right_of_a_cut_are_the_pieces_of_the_whole(fragments):
    text = "".join(fragments).encode("utf-8", "surrogateescape")
    for offset in range(len(text) + 2):
        cut = next_cut(text, offset)
        assert min(offset, len(text)) <= cut <= len(text)
        assert [*split_pieces(text[:cut]), *split_pieces(text[cut:])] == list(split_pieces(text))


def test_chunks_of_ordinary_text_are_about_as_long_as_asked():
    chunks = list(text_chunks(io.BytesIO(ENGLISH * 50), 500))
    assert max(map(len, chunks)) <= 1000
    assert len(chunks) >= len(ENGLISH) * 50 / 600


@any_time
@given(st.lists(texts, max_size=5), st.integers(1, 30))
def test_training_does_not_depend_on_the_chunks(parts, chunk_bytes):
    text = b" ".join([ENGLISH, *parts])
    assert train(text_chunks(io.BytesIO(text), chunk_bytes), 300) == train([text], 300)


def test_equal_counts_are_decided_by_the_smallest_pair_of_ids():
    assert train([b"zy xw\nba"], 258).merges == ((ord(" "), ord("x")),)
    assert train([b"zy\nxw\nba\nbc"], 260).merges == ((98, 97), (98, 99), (120, 119))


def test_end_of_text_divides_words_in_training_and_is_never_learned():
    text = (b"ab" + END + b"cd" + END) * 9
    assert train([text], 259).merges == ((97, 98), (99, 100))
    with pytest.raises(UserError, match="gives 2 merges"):
        train([text], 260)


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


@any_time
@given(texts)
def test_any_merges_survive_tokenizer_json(text):
    merges = list(as_many_as(text * 2, 20).merges)
    assert formats.read_json(formats.write_json(merges).encode(), "tokenizer.json") == merges


CHANGES = {
    "normalizer": lambda d: d.update(normalizer={"type": "NFC"}),
    "pre_tokenizer.add_prefix_space": lambda d: d["pre_tokenizer"].update(add_prefix_space=True),
    "pre_tokenizer.type": lambda d: d["pre_tokenizer"].update(type="Split"),
    "model.type": lambda d: d["model"].update(type="Unigram"),
    "model.dropout": lambda d: d["model"].update(dropout=0.1),
    "model.byte_fallback": lambda d: d["model"].pop("byte_fallback"),
    "model.extra": lambda d: d["model"].update(extra=1),
    "model.merges": lambda d: d["model"].pop("merges"),
    "model.merges[0]": lambda d: d["model"]["merges"].pop(0),
    "model.merges[2]": lambda d: d["model"]["merges"].insert(2, d["model"]["merges"][1]),
    "model.merges[3]": lambda d: d["model"]["merges"].insert(3, "a b"),
    "model.vocab.Ġ": lambda d: d["model"]["vocab"].update({"Ġ": 220}),
    "added_tokens": lambda d: d["added_tokens"].append(dict(d["added_tokens"][0], content="<pad>")),
    "added_tokens[0].content": lambda d: d["added_tokens"][0].update(content="</s>"),
    "unknown": lambda d: d.update(unknown=[]),
}


@pytest.mark.parametrize("field", CHANGES)
def test_a_foreign_or_damaged_tokenizer_json_is_refused_by_the_name_of_its_field(field, tmp_path):
    path = write_with(tmp_path / "tokenizer.json", CHANGES[field])
    with pytest.raises(UserError) as error:
        Tokenizer.load(path)
    assert f"tokenizer.json: {field}: got " in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b"null", b'{"model": 3}'])
def test_a_file_that_is_no_tokenizer_json_is_refused_by_its_name(content, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(UserError, match=r"tokenizer\.json: "):
        Tokenizer.load(tmp_path / "tokenizer.json")


def test_a_missing_tokenizer_json_is_refused_with_the_rule_that_makes_it(tmp_path):
    with pytest.raises(UserError, match="train_tokenizer"):
        Tokenizer.load(tmp_path / "tokenizer.json")


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


def assigned(text):
    """Return the text without the characters that this Python's Unicode does not know, but HF's may."""
    return "".join(c for c in text if unicodedata.category(c) not in ("Cn", "Cs"))


@pytest.fixture(scope="module")
def peer(english, tmp_path_factory):
    tokenizers = pytest.importorskip("tokenizers", reason="HF's tokenizers is not installed: ids not compared with it")
    path = tmp_path_factory.mktemp("hf") / "tokenizer.json"
    english.save(path)
    return tokenizers.Tokenizer.from_file(str(path))


@any_time
@given(st.one_of(st.text(max_size=60), texts.map(lambda text: text.decode("utf-8", "ignore"))))
def test_hugging_face_gives_the_same_ids(peer, english, text):
    text = assigned(text)
    assert peer.encode(text).ids == english.encode(text).tolist()


def test_hugging_face_gives_the_same_ids_on_every_code_point(peer, english):
    text = assigned("".join(f"a{chr(c)}1{chr(c)}!{chr(c)}\n{chr(c)} " for c in range(CLASS_TABLE_SIZE)))
    assert peer.encode(text).ids == english.encode(text).tolist()


def test_a_tokenizer_json_that_hugging_face_saved_again_loads_as_the_same(peer, english, tmp_path):
    peer.save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer.load(tmp_path / "tokenizer.json") == english


def test_hugging_face_decodes_to_the_same_text(peer, english):
    text = ENGLISH.decode()
    assert peer.decode(english.encode(text).tolist(), skip_special_tokens=False) == text
