"""Read tokenizer.json of Hugging Face's tokenizers; write_formats.py describes the format.

ACCEPTED lists the values that a field may have. Any other field or value is refused by name, so that nothing is
silently ignored. The one exception is post_processor: it adds special tokens around a model's input, and a corpus is
encoded without them.
"""

import json
import operator
from itertools import repeat
from typing import Any

from hipgpt.base.errors import UserError
from hipgpt.data.tokenizer import native
from hipgpt.data.tokenizer.pretokenize import PATTERNS
from hipgpt.data.tokenizer.renumber import MergeIds, assemble, unsupported
from hipgpt.data.tokenizer.write_formats import BYTE_CHARACTERS, DIGITS, NFC, Parts, unspell_all

ABSENT = (None, "")
# The values that a field of tokenizer.json may have; several mean the same. An absent field has the first one.
ACCEPTED = {
    "truncation": (None,),
    "padding": (None,),
    "normalizer": (None, NFC),
    "model.type": ("BPE",),
    "model.dropout": (None, 0),
    "model.unk_token": (None,),
    "model.continuing_subword_prefix": ABSENT,
    "model.end_of_word_suffix": ABSENT,
    "model.fuse_unk": (False, True),  # a byte-level tokenizer has no unknown tokens to fuse
    "model.byte_fallback": (False,),
}
READ = {"version", "added_tokens", "pre_tokenizer", "post_processor", "decoder", "model"}
READ_OF_MODEL = {"ignore_merges", "vocab", "merges"}
_NO_ID = -1
READ_OF_ADDED = ("id", "content", "special", "normalized")


def read_json(text: bytes, where: str) -> Parts:
    """Return the parts of a tokenizer.json. Raises UserError, naming the field, if it is damaged or not supported."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or nested without end
        raise UserError(
            f"{where}: not a tokenizer.json ({error}); expected JSON in the format of Hugging Face's tokenizers"
        ) from error
    model = document.get("model") if isinstance(document, dict) else None
    if not isinstance(model, dict):
        raise unsupported(where, "model", model, "a BPE model")
    _check_fields(document, where, "", READ)
    _check_fields(model, where, "model.", READ_OF_MODEL)
    pattern = _read_pattern(document.get("pre_tokenizer"), where)
    decoder = document.get("decoder")
    if not (isinstance(decoder, dict) and decoder.get("type") == "ByteLevel"):
        raise unsupported(where, "decoder", decoder, "ByteLevel")
    ignore_merges = model.get("ignore_merges", False)
    if not isinstance(ignore_merges, bool):
        raise unsupported(where, "model.ignore_merges", ignore_merges, "true or false")
    specials = _read_added_tokens(document.get("added_tokens", []), where)
    vocab = _read_vocab(model.get("vocab"), specials, where)
    merges = _read_merges(model.get("merges"), vocab, where)
    parts = assemble(vocab, merges, pattern, specials, ignore_merges, where)
    return parts._replace(nfc=document.get("normalizer") == NFC)


def _check_fields(found: dict[str, Any], where: str, prefix: str, read: set[str]) -> None:
    for key in [*found, *ACCEPTED]:
        name = key if key in ACCEPTED else prefix + key
        if name in ACCEPTED and name.rpartition(".")[0] == prefix.rstrip("."):
            got = found.get(name.removeprefix(prefix), ACCEPTED[name][0])
            if not any(type(got) is type(one) and got == one or got is one for one in ACCEPTED[name]):
                raise unsupported(where, name, got, ACCEPTED[name][0])
        elif key not in read and key in found:
            raise unsupported(where, name, found[key], "no such field")


def _read_pattern(found: object, where: str) -> str:
    field, expected_type = "pre_tokenizer", "ByteLevel, or a Sequence of Split or Digits and ByteLevel"
    if not isinstance(found, dict):
        raise unsupported(where, field, found, expected_type)
    if found.get("type") == "ByteLevel":
        _check_byte_level(found, where, field, use_regex=True)
        return "gpt2"
    steps = found.get("pretokenizers") if found.get("type") == "Sequence" else None
    if not (isinstance(steps, list) and len(steps) == 2 and all(isinstance(step, dict) for step in steps)):
        raise unsupported(where, f"{field}.type", found.get("type"), expected_type)
    if steps[0] == DIGITS:
        _check_byte_level(steps[1], where, "pre_tokenizer.pretokenizers[1]", use_regex=True)
        return "smollm"
    split, field = steps[0], f"{field}.pretokenizers[0]"
    expected = {"type": "Split", "behavior": "Isolated", "invert": False}
    for key, value in expected.items():
        if split.get(key) != value:
            raise unsupported(where, f"{field}.{key}", split.get(key), value)
    regex = split["pattern"].get("Regex") if isinstance(split.get("pattern"), dict) else None
    names = [name for name, pattern in PATTERNS.items() if pattern == regex]
    if not names:
        raise unsupported(where, f"{field}.pattern", regex, f"the pattern of {', '.join(PATTERNS)}")
    _check_byte_level(steps[1], where, "pre_tokenizer.pretokenizers[1]", use_regex=False)
    return names[0]


def _check_byte_level(found: dict[str, Any], where: str, field: str, use_regex: bool) -> None:
    expected = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": use_regex}
    for key, value in expected.items():
        if found.get(key, True) != value:
            raise unsupported(where, f"{field}.{key}", found.get(key), value)


def _read_added_tokens(found: object, where: str) -> dict[str, int]:
    specials: dict[str, int] = {}
    for index, token in enumerate(found if isinstance(found, list) else [found]):
        field = f"added_tokens[{index}]"
        if not (isinstance(token, dict) and isinstance(token.get("content"), str) and token["content"]):
            raise unsupported(where, field, token, "an object with id and content")
        if type(token.get("id")) is not int or not 0 <= token["id"] < native.ID_LIMIT:
            raise unsupported(where, f"{field}.id", token.get("id"), f"an id from 0 to {native.ID_LIMIT - 1}")
        for key, value in token.items():
            if key not in READ_OF_ADDED and value is not False:
                raise unsupported(where, f"{field}.{key}", value, False)
        if any("\ud800" <= character <= "\udfff" for character in token["content"]):
            raise unsupported(where, f"{field}.content", token["content"], "whole characters, not a lone surrogate")
        if token["content"] in specials:
            raise unsupported(where, f"{field}.content", token["content"], "a token that was not added before")
        specials[token["content"]] = token["id"]
    return specials


def _read_vocab(found: object, specials: dict[str, int], where: str) -> dict[str, int]:
    """Return the ids of the tokens that are not special, by name."""
    if not isinstance(found, dict):
        raise unsupported(where, "model.vocab", found, "an object of tokens and their ids")
    taken = {index: content for content, index in specials.items()}
    for name, index in found.items():
        if type(index) is not int or not 0 <= index < native.ID_LIMIT:
            raise unsupported(where, f"model.vocab.{name}", index, f"an id from 0 to {native.ID_LIMIT - 1}")
        if taken.setdefault(index, name) != name or specials.get(name, index) != index:
            expected = "an id that no other token has, the same as in added_tokens"
            raise unsupported(where, f"model.vocab.{name}", index, expected)
    vocab = {name: index for name, index in found.items() if name not in specials}
    for name, token in zip(vocab, unspell_all([*vocab]), strict=True):
        if not token:
            raise unsupported(where, f"model.vocab.{name}", name, "a token in GPT-2's byte characters")
    for character in BYTE_CHARACTERS.values():
        if character not in vocab:
            raise unsupported(where, f"model.vocab.{character}", "nothing", "an id, because every byte has one")
    return vocab


def _read_merges(found: object, vocab: dict[str, int], where: str) -> list[MergeIds]:
    if not isinstance(found, list):
        raise unsupported(where, "model.merges", found, "a list of pairs of tokens")
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in found]
    for index, pair in enumerate(pairs):
        if not (type(pair) is list and len(pair) == 2 and type(pair[0]) is type(pair[1]) is str):
            raise unsupported(where, f"model.merges[{index}]", found[index], "two tokens, as in ['Ġ', 't']")
    lefts, rights = [left for left, _ in pairs], [right for _, right in pairs]
    names = (lefts, rights, map(operator.add, lefts, rights))
    merges = [*zip(*(map(vocab.get, column, repeat(_NO_ID)) for column in names), strict=True)]
    for index, merge in enumerate(merges):
        if _NO_ID in merge[:2]:
            name = pairs[index][merge.index(_NO_ID)]
            raise unsupported(where, f"model.merges[{index}]", name, "a token of model.vocab")
        if _NO_ID in merge:
            raise unsupported(where, f"model.merges[{index}]", found[index], "a pair whose result is in model.vocab")
    return merges
