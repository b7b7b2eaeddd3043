"""Files of other tools: reading and writing them keeps all ids, and unsupported fields are named."""

import base64
import dataclasses
import json
import random
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import hugging_face_ids
from support.spans import SPANS_OF_EVERY_KIND

from hipgpt.base.errors import UserError
from hipgpt.data.tokenizer import write_formats as formats
from hipgpt.data.tokenizer.pretokenize import CLASS_TABLE_SIZE, END_OF_TEXT, PATTERNS
from hipgpt.data.tokenizer.tokenizer import Tokenizer, train

TEXT = """It's the lark's song; THEY'LL say we've 1,000,000 larks, I'm told. \t\r\n\n  Don't you'd 're   (think) "so"?
Été naïve 你好\u3000世界 😀!! the the the lark larks\n \n  x = 12345;\n\n""".encode()
RICH = TEXT * 3 + Path(formats.__file__).read_bytes()
SPANS = [*SPANS_OF_EVERY_KIND, END_OF_TEXT, END_OF_TEXT[:5]]
every_pattern = pytest.mark.parametrize("pattern", PATTERNS)


def assigned(text):
    """Return the text without the characters that are unassigned in this Python's version of Unicode."""
    return "".join(c for c in text if unicodedata.category(c) not in ("Cn", "Cs"))


def hostile_texts():
    """Yield the hostile set: neighbouring spans of every kind, long runs, every code point between others."""
    draw = random.Random(1)
    for _ in range(3000):
        yield "".join(draw.choice(SPANS) for _ in range(draw.randint(0, 14)))
    for span in SPANS:
        yield span * 5000
    yield assigned("".join(f"a{chr(c)}1{chr(c)}!{chr(c)}\n{chr(c)} " for c in range(CLASS_TABLE_SIZE)))
    yield assigned("".join(f"{chr(c)} a" for c in range(CLASS_TABLE_SIZE, 0x110000)))


@pytest.fixture(scope="module", params=PATTERNS)
def tokenizer(request):
    return train([RICH], 700, request.param)


@pytest.fixture(scope="module")
def peer(tokenizer, tmp_path_factory):
    tokenizers = pytest.importorskip("tokenizers", reason="HF's tokenizers is not installed: ids not compared with it")
    path = tmp_path_factory.mktemp("hf") / "tokenizer.json"
    tokenizer.save(path)
    return tokenizers.Tokenizer.from_file(str(path))


@pytest.mark.slow
def test_hugging_face_gives_the_same_ids_on_the_hostile_set(peer, tokenizer):
    for text in hostile_texts():
        assert peer.encode(text).ids == tokenizer.encode(text).tolist(), ascii(text[:80])


@given(text=st.text(max_size=60))
def test_hugging_face_gives_the_same_ids(peer, tokenizer, text):
    text = assigned(text)
    assert peer.encode(text).ids == tokenizer.encode(text).tolist()


def test_hugging_face_decodes_to_the_same_text(peer, tokenizer):
    ids = tokenizer.encode(TEXT).tolist()
    assert peer.decode(ids, skip_special_tokens=False).encode() == tokenizer.decode(ids) == TEXT


def test_a_tokenizer_json_that_hugging_face_saved_again_loads_as_the_same(peer, tokenizer, tmp_path):
    peer.save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer.load(tmp_path / "tokenizer.json") == tokenizer


def test_tiktoken_gives_the_same_ids_from_the_ranks_we_write_and_we_from_what_it_reads(tokenizer, tmp_path):
    tiktoken = pytest.importorskip("tiktoken", reason="tiktoken is not installed: ids not compared with it")
    tokenizer.save(tmp_path / "ranks.tiktoken")
    lines = [line.split() for line in (tmp_path / "ranks.tiktoken").read_bytes().splitlines()]
    ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
    peer = tiktoken.Encoding("x", pat_str=PATTERNS[tokenizer.pattern], mergeable_ranks=ranks, special_tokens={})
    assert Tokenizer.load(tmp_path / "ranks.tiktoken").pattern == "cl100k"
    read = Tokenizer.load(tmp_path / "ranks.tiktoken", tokenizer.pattern)
    assert (read.merges, read.ids, read.pattern) == (tokenizer.merges, tokenizer.ids, tokenizer.pattern)
    for text in hostile_texts():
        text = text.replace(END_OF_TEXT, "")
        ids = peer.encode_ordinary(text)
        assert tokenizer.encode(text).tolist() == ids, ascii(text[:80])
        assert read.encode(text).tolist() == ids


def test_a_tokenizer_json_of_another_pattern_than_asked_for_is_refused(tmp_path):
    Tokenizer((), "qwen2").save(tmp_path / "tokenizer.json")
    assert Tokenizer.load(tmp_path / "tokenizer.json", "qwen2").pattern == "qwen2"
    with pytest.raises(UserError, match="pre_tokenizer: got the pattern qwen2, expected tokenizer.pattern, gpt2"):
        Tokenizer.load(tmp_path / "tokenizer.json", "gpt2")


def llama(vocab_of):
    """Return a document of Llama 3's kind: bytes in another order, every pair that makes a token, tokens that no pair
    makes, pieces taken whole, several special tokens, a post_processor."""
    tokenizer = Tokenizer(vocab_of.merges, "cl100k", specials=((END_OF_TEXT, 700), ("<|begin_of_text|>", 701)))
    tokens = {name: 0 for name in tokenizer_document(tokenizer)["model"]["vocab"] if name != END_OF_TEXT}
    names = [*sorted(name for name in tokens if len(name) == 1), *(name for name in tokens if len(name) > 1)]
    names.insert(300, "zqj")
    vocab = {name: index for index, name in enumerate(names)}
    merges = [
        [n[:i], n[i:]] for n in names for i in range(1, len(n)) if n != "zqj" and n[:i] in vocab and n[i:] in vocab
    ]
    document = tokenizer_document(tokenizer)
    document["model"] |= {"vocab": vocab, "merges": merges, "ignore_merges": True}
    template = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<|begin_of_text|>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}}], "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
                "special_tokens": {"<|begin_of_text|>": {"id": "<|begin_of_text|>", "ids": [701],
                                   "tokens": ["<|begin_of_text|>"]}}}  # fmt: skip
    document["post_processor"] = template
    return document


def tokenizer_document(tokenizer):
    return json.loads(tokenizer._json)


@pytest.mark.slow
def test_a_tokenizer_of_llamas_kind_gives_hugging_faces_ids_before_and_after_writing_it(tmp_path):
    tokenizers = pytest.importorskip("tokenizers", reason="HF's tokenizers is not installed: ids not compared with it")
    document = llama(train([RICH], 700, "cl100k"))
    (tmp_path / "llama.json").write_text(json.dumps(document))
    ours = Tokenizer.load(tmp_path / "llama.json")
    ours.save(tmp_path / "again.json")
    assert len(ours.merges) < len(document["model"]["merges"])
    assert Tokenizer.load(tmp_path / "again.json") == ours
    theirs = [tokenizers.Tokenizer.from_file(str(tmp_path / name)) for name in ("llama.json", "again.json")]
    for text in ["zqj", " zqj zqj", "<|begin_of_text|>x<|begin_of_", *hostile_texts()]:
        ids = ours.encode(text).tolist()
        assert theirs[0].encode(text, add_special_tokens=False).ids == ids, ascii(text[:80])
        assert theirs[1].encode(text).ids == ids
    assert ours.encode("zqj").tolist() == [300]
    assert ours.vocab_size == 702
    assert ours.end_of_text == 700


def test_a_tokenizer_of_qwens_kind_normalizes_as_hugging_face_does(tmp_path):
    """Form C, but not across a special token: "<|x|>" is whole although ">" and U+0338 have a composed form."""
    tokenizers = pytest.importorskip("tokenizers", reason="HF's tokenizers is not installed: ids not compared with it")
    trained = train([RICH], 700, "qwen2")
    ours = dataclasses.replace(trained, specials=(*trained.specials, ("<|x|>", 700)), nfc=True)
    ours.save(tmp_path / "tokenizer.json")
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert Tokenizer.load(tmp_path / "tokenizer.json") == ours
    for text in ["e\u0301t\u00e9\u212b", "a>\u0338", "<|x|>\u0338", "\u1100\u1161\u11a8", "q\u0323\u0307q\u0307\u0323"]:
        ids = ours.encode(text).tolist()
        assert ids == theirs.encode(text).ids, ascii(text)
        assert list(ours.encode_all([text.encode()]))[0].tolist() == ids
    assert ours.decode(ours.encode("e\u0301 \udcff".encode("utf-8", "surrogateescape"))) == "\u00e9 ".encode() + b"\xff"
    assert 700 in ours.encode("<|x|>\u0338")


def test_merges_as_strings_and_absent_optional_fields_are_read(tmp_path):
    tokenizer = train([TEXT], 330)
    document = tokenizer_document(tokenizer)
    document["model"]["merges"] = [" ".join(pair) for pair in document["model"]["merges"]]
    for field in ("ignore_merges", "byte_fallback", "dropout", "fuse_unk"):
        del document["model"][field]
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    assert Tokenizer.load(tmp_path / "tokenizer.json") == tokenizer


def test_a_merge_that_never_applies_is_left_out_with_its_token_kept(tmp_path):
    # "ab" is made first, so that "bc" never stands in "abc" and (a, bc) never makes it
    document = tokenizer_document(train([b"ab\nab\nab\nbc\nbc"], 259))
    assert document["model"]["merges"] == [["a", "b"], ["b", "c"]]
    document["model"]["vocab"] |= {"abc": 259}
    document["model"]["merges"].append(["a", "bc"])
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    assert loaded.merges == ((97, 98), (98, 99))
    assert loaded.encode("abc").tolist() == [256, 99]
    assert loaded.decode([259]) == b"abc"


CHANGES = {
    "normalizer": lambda d: d.update(normalizer={"type": "Lowercase"}),
    "truncation": lambda d: d.update(truncation={"max_length": 5}),
    "pre_tokenizer": lambda d: d.update(pre_tokenizer=None),
    "pre_tokenizer.add_prefix_space": lambda d: d["pre_tokenizer"].update(add_prefix_space=True),
    "pre_tokenizer.type": lambda d: d["pre_tokenizer"].update(type="Whitespace"),
    "pre_tokenizer.pretokenizers[0].pattern": lambda d: d.update(pre_tokenizer=split({"Regex": "\\w+"})),
    "pre_tokenizer.pretokenizers[0].behavior": lambda d: d.update(pre_tokenizer=split(behavior="Removed")),
    "pre_tokenizer.pretokenizers[1].use_regex": lambda d: d.update(pre_tokenizer=split(use_regex=True)),
    "pre_tokenizer.pretokenizers[0].type": lambda d: d.update(pre_tokenizer=digits(individual_digits=False)),
    "pre_tokenizer.pretokenizers[1].add_prefix_space": lambda d: d.update(pre_tokenizer=digits(add_prefix_space=True)),
    "decoder": lambda d: d.update(decoder={"type": "Metaspace"}),
    "model": lambda d: d.update(model=3),
    "model.type": lambda d: d["model"].update(type="Unigram"),
    "model.dropout": lambda d: d["model"].update(dropout=0.1),
    "model.byte_fallback": lambda d: d["model"].update(byte_fallback=True),
    "model.unk_token": lambda d: d["model"].update(unk_token="<unk>"),
    "model.end_of_word_suffix": lambda d: d["model"].update(end_of_word_suffix="</w>"),
    "model.extra": lambda d: d["model"].update(extra=1),
    "model.ignore_merges": lambda d: d["model"].update(ignore_merges=1),
    "model.merges": lambda d: d["model"].pop("merges"),
    "model.merges[0]": lambda d: d["model"]["merges"].insert(0, d["model"]["merges"].pop()),
    "model.merges[1]": lambda d: d["model"]["merges"].insert(1, ["q", "q"]),
    "model.merges[3]": lambda d: d["model"]["merges"].insert(3, "a b c"),
    "model.vocab": lambda d: d["model"].pop("vocab"),
    "model.vocab.Ġ": lambda d: d["model"]["vocab"].pop("Ġ"),
    "model.vocab.b": lambda d: d["model"]["vocab"].update(a=98),
    "model.vocab.語": lambda d: d["model"]["vocab"].update({"語": 5000}),
    "model.vocab.zz": lambda d: d["model"]["vocab"].update(zz=-1),
    "added_tokens[0]": lambda d: d["added_tokens"].insert(0, 3),
    "added_tokens[0].lstrip": lambda d: d["added_tokens"][0].update(lstrip=True),
    "added_tokens[1].content": lambda d: d["added_tokens"].append(dict(d["added_tokens"][0])),
    "unknown": lambda d: d.update(unknown=[]),
}


def split(pattern=None, behavior="Isolated", use_regex=False):
    first = {
        "type": "Split",
        "pattern": pattern or {"Regex": PATTERNS["cl100k"]},
        "behavior": behavior,
        "invert": False,
    }
    second = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}
    return {"type": "Sequence", "pretokenizers": [first, second]}


def digits(individual_digits=True, add_prefix_space=False):
    second = {"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": True, "use_regex": True}
    return {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": individual_digits}, second]}


@pytest.mark.parametrize("field", CHANGES)
def test_what_is_not_supported_or_damaged_is_refused_by_the_name_of_its_field(field, tmp_path):
    document = tokenizer_document(train([TEXT], 330))
    CHANGES[field](document)
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(UserError) as error:
        Tokenizer.load(tmp_path / "tokenizer.json")
    assert f"tokenizer.json: {field}: got " in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b"null", b'{"model": 3}'])
def test_a_file_that_is_no_tokenizer_json_is_refused_by_its_name(content, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(UserError, match=r"tokenizer\.json: "):
        Tokenizer.load(tmp_path / "tokenizer.json")


@pytest.mark.parametrize(("content", "message"), [
    (b"IQ== 0\nnonsense\n", "line 2: got"), (b"IQ== x\n", "line 1: got"), (b"", "there is no rank for the byte 0"),
])  # fmt: skip
def test_damaged_ranks_are_refused_by_line(content, message, tmp_path):
    (tmp_path / "a.tiktoken").write_bytes(content)
    with pytest.raises(UserError, match=message):
        Tokenizer.load(tmp_path / "a.tiktoken")


def test_a_missing_tokenizer_json_is_refused_with_the_rule_that_makes_it(tmp_path):
    with pytest.raises(UserError, match="train_tokenizer"):
        Tokenizer.load(tmp_path / "tokenizer.json")


def test_a_tokenizer_without_an_end_of_text_is_refused_where_one_is_needed(tmp_path):
    tokenizer = Tokenizer((), specials=(("<pad>", 256),))
    assert tokenizer.encode("a<pad>").tolist() == [97, 256]
    with pytest.raises(UserError, match="added_tokens"):
        _ = tokenizer.end_of_text


def test_of_special_tokens_at_one_place_the_longest_is_taken():
    tokenizer = Tokenizer((), specials=(("<a>", 256), ("<a><b>", 257), ("[x]", 258)))
    assert tokenizer.encode("<a><a><b>[x]<a").tolist() == [256, 257, 258, ord("<"), ord("a")]


@every_pattern
def test_ids_are_those_that_hugging_face_gave_on_the_hostile_set_shipped_here(pattern, tmp_path):
    """Without the package: tests/support/hugging_face_ids.py wrote the tokenizer, the texts and their ids."""
    record = json.loads((hugging_face_ids.FOLDER / f"{pattern}.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(record["tokenizer"]))
    tokenizer = Tokenizer.load(tmp_path / "tokenizer.json")
    assert tokenizer.pattern == pattern
    assert list(record["ids"]) == list(dict.fromkeys(hugging_face_ids.texts()))
    for text, ids in record["ids"].items():
        assert tokenizer.encode(text).tolist() == ids, ascii(text)
        assert tokenizer.decode(ids) == text.encode()
    ids = tokenizer.encode(hugging_face_ids.characters())
    assert hugging_face_ids.hash_of(ids) == record["ids_of_characters_sha256"]
