"""Tokenizers as files: Hugging Face's tokenizer.json for byte-level BPE, and tiktoken's ranks.

tokenizer.json spells bytes with GPT-2's characters: a printable byte as itself, any other as a character above U+00FF
(" " is "Ġ"). What a field may hold is said in one place here, and anything else is refused by the field's name, so
nothing foreign is silently ignored. A post_processor is read over: it adds special tokens around a text that is given
to a model, and a corpus is encoded without.
"""

import base64
import binascii
import json
from typing import NamedTuple

import numpy as np

from hipgpt.errors import UserError
from hipgpt.tokenizer import native
from hipgpt.tokenizer.bpe import BYTES, Pair, spell_merges
from hipgpt.tokenizer.pretokenize import END_OF_TEXT, PATTERNS

_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_OTHERS = [byte for byte in range(BYTES) if byte not in _PRINTABLE]
BYTE_CHARACTERS = {byte: chr(byte) for byte in _PRINTABLE} | {byte: chr(BYTES + i) for i, byte in enumerate(_OTHERS)}
_BYTES = {character: byte for byte, character in BYTE_CHARACTERS.items()}
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
ABSENT = (None, "")
# What may stand in a field of tokenizer.json, where more than one value means the same; absent fields are the first.
ACCEPTED = {
    "truncation": (None,),
    "padding": (None,),
    "normalizer": (None,),
    "model.type": ("BPE",),
    "model.dropout": (None, 0),
    "model.unk_token": (None,),
    "model.continuing_subword_prefix": ABSENT,
    "model.end_of_word_suffix": ABSENT,
    "model.fuse_unk": (False, True),  # there is nothing unknown to fuse
    "model.byte_fallback": (False,),
}
READ = {"version", "added_tokens", "pre_tokenizer", "post_processor", "decoder", "model"}
READ_OF_MODEL = {"ignore_merges", "vocab", "merges"}
READ_OF_ADDED = ("id", "content", "special", "normalized")


class Parts(NamedTuple):
    """What makes a tokenizer; hipgpt.tokenizer.Tokenizer describes the fields."""

    merges: tuple[Pair, ...]
    pattern: str
    ids: tuple[int, ...]
    specials: tuple[tuple[str, int], ...]
    whole: tuple[tuple[bytes, int], ...]
    ignore_merges: bool


def spell(token: bytes) -> str:
    """Return the token in GPT-2's byte characters."""
    return "".join(map(BYTE_CHARACTERS.__getitem__, token))


def unspell(name: str) -> bytes | None:
    """Return the bytes that GPT-2's characters spell, None if some of them are none."""
    try:
        return bytes(map(_BYTES.__getitem__, name))
    except KeyError:
        return None


# ---- Writing.


def write_json(parts: Parts) -> str:
    """Return the text of tokenizer.json: equal parts give equal text."""
    return json.dumps(tokenizer_document(parts), indent=2, ensure_ascii=False) + "\n"


def tokenizer_document(parts: Parts) -> dict:
    """Return what tokenizer.json says about a tokenizer."""
    names = [spell(token) for token in spell_merges(parts.merges)]
    vocab = {**dict(zip(names, parts.ids, strict=True)), **{spell(token): index for token, index in parts.whole}}
    vocab |= {content: index for content, index in parts.specials if content == END_OF_TEXT}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": index, "content": content, **flags} for content, index in parts.specials],
        "normalizer": None,
        "pre_tokenizer": _pre_tokenizer(parts.pattern),
        "post_processor": None,
        "decoder": {**BYTE_LEVEL, "add_prefix_space": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": parts.ignore_merges,
            "vocab": dict(sorted(vocab.items(), key=lambda item: item[1])),
            "merges": [[names[left], names[right]] for left, right in parts.merges],
        },
    }


def _pre_tokenizer(pattern: str) -> dict:
    if pattern == "gpt2":
        return BYTE_LEVEL
    split = {"type": "Split", "pattern": {"Regex": PATTERNS[pattern]}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, {**BYTE_LEVEL, "use_regex": False}]}


def write_ranks(parts: Parts) -> str:
    """Return tiktoken's ranks: a line "<token in base64> <id>" for each token but the special ones."""
    tokens = dict(zip(spell_merges(parts.merges), parts.ids, strict=True)) | dict(parts.whole)
    rows = sorted(tokens.items(), key=lambda item: item[1])
    return "".join(f"{base64.b64encode(token).decode()} {index}\n" for token, index in rows)


def tokenizer_config(context_tokens: int, end_of_text: str = END_OF_TEXT) -> dict:
    """Return the content of tokenizer_config.json, which transformers reads beside tokenizer.json."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": end_of_text,
        "eos_token": end_of_text,
        "model_max_length": context_tokens,
        "clean_up_tokenization_spaces": False,
    }


# ---- Reading tokenizer.json.


def read_json(text: bytes, where: str) -> Parts:
    """Return the parts of a tokenizer.json. Raises UserError, naming the field, if it is damaged or not supported."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or nested without end
        raise UserError(
            f"{where}: not a tokenizer.json ({error}); expected JSON as Hugging Face's tokenizers write"
        ) from error
    model = document.get("model") if isinstance(document, dict) else None
    if not isinstance(model, dict):
        raise _refusal(where, "model", model, "a BPE model")
    _check_fields(document, where, "", READ)
    _check_fields(model, where, "model.", READ_OF_MODEL)
    pattern = _read_pattern(document.get("pre_tokenizer"), where)
    decoder = document.get("decoder")
    if not (isinstance(decoder, dict) and decoder.get("type") == "ByteLevel"):
        raise _refusal(where, "decoder", decoder, "ByteLevel")
    ignore_merges = model.get("ignore_merges", False)
    if not isinstance(ignore_merges, bool):
        raise _refusal(where, "model.ignore_merges", ignore_merges, "true or false")
    specials = _read_added_tokens(document.get("added_tokens", []), where)
    vocab = _read_vocab(model.get("vocab"), specials, where)
    pairs = _read_merges(model.get("merges"), vocab, where)
    return _assemble(vocab, pairs, pattern, specials, ignore_merges)


def _check_fields(found: dict, where: str, prefix: str, read: set[str]) -> None:
    for key in [*found, *ACCEPTED]:
        name = key if key in ACCEPTED else prefix + key
        if name in ACCEPTED and name.rpartition(".")[0] == prefix.rstrip("."):
            got = found.get(name.removeprefix(prefix), ACCEPTED[name][0])
            if not any(type(got) is type(one) and got == one or got is one for one in ACCEPTED[name]):
                raise _refusal(where, name, got, ACCEPTED[name][0])
        elif key not in read and key in found:
            raise _refusal(where, name, found[key], "no such field")


def _read_pattern(found, where: str) -> str:
    field = "pre_tokenizer"
    if not isinstance(found, dict):
        raise _refusal(where, field, found, "ByteLevel, or a Sequence of Split and ByteLevel")
    if found.get("type") == "ByteLevel":
        _check_byte_level(found, where, field, use_regex=True)
        return "gpt2"
    steps = found.get("pretokenizers") if found.get("type") == "Sequence" else None
    if not (isinstance(steps, list) and len(steps) == 2 and all(isinstance(step, dict) for step in steps)):
        raise _refusal(where, f"{field}.type", found.get("type"), "ByteLevel, or a Sequence of Split and ByteLevel")
    split, field = steps[0], f"{field}.pretokenizers[0]"
    expected = {"type": "Split", "behavior": "Isolated", "invert": False}
    for key, value in expected.items():
        if split.get(key) != value:
            raise _refusal(where, f"{field}.{key}", split.get(key), value)
    regex = split["pattern"].get("Regex") if isinstance(split.get("pattern"), dict) else None
    names = [name for name, pattern in PATTERNS.items() if pattern == regex]
    if not names:
        raise _refusal(where, f"{field}.pattern", regex, f"the pattern of {', '.join(PATTERNS)}")
    _check_byte_level(steps[1], where, "pre_tokenizer.pretokenizers[1]", use_regex=False)
    return names[0]


def _check_byte_level(found: dict, where: str, field: str, use_regex: bool) -> None:
    expected = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": use_regex}
    for key, value in expected.items():
        if found.get(key, True) != value:
            raise _refusal(where, f"{field}.{key}", found.get(key), value)


def _read_added_tokens(found, where: str) -> dict[str, int]:
    specials: dict[str, int] = {}
    for index, token in enumerate(found if isinstance(found, list) else [found]):
        field = f"added_tokens[{index}]"
        if not (isinstance(token, dict) and isinstance(token.get("content"), str) and token["content"]):
            raise _refusal(where, field, token, "an object with id and content")
        if type(token.get("id")) is not int or not 0 <= token["id"] < native.ID_LIMIT:
            raise _refusal(where, f"{field}.id", token.get("id"), f"an id from 0 to {native.ID_LIMIT - 1}")
        for key, value in token.items():
            if key not in READ_OF_ADDED and value is not False:
                raise _refusal(where, f"{field}.{key}", value, False)
        if token["content"] in specials:
            raise _refusal(where, f"{field}.content", token["content"], "a token that was not added before")
        specials[token["content"]] = token["id"]
    return specials


def _read_vocab(found, specials: dict[str, int], where: str) -> dict[bytes, int]:
    """Return the ids of the tokens that are no special ones."""
    if not isinstance(found, dict):
        raise _refusal(where, "model.vocab", found, "an object of tokens and their ids")
    vocab, taken = {}, {index: content for content, index in specials.items()}
    for name, index in found.items():
        field = f"model.vocab.{name}"
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < native.ID_LIMIT:
            raise _refusal(where, field, index, f"an id from 0 to {native.ID_LIMIT - 1}")
        if specials.get(name, index) != index or taken.get(index, name) != name:
            raise _refusal(where, field, index, "an id that no other token has, the same as in added_tokens")
        taken[index] = name
        token = unspell(name)
        if name in specials:
            continue
        if not token:
            raise _refusal(where, field, name, "a token in GPT-2's byte characters")
        vocab[token] = index
    for byte, character in BYTE_CHARACTERS.items():
        if bytes([byte]) not in vocab:
            raise _refusal(where, f"model.vocab.{character}", "nothing", "an id, as every byte has")
    return vocab


def _read_merges(found, vocab: dict[bytes, int], where: str) -> list[tuple[bytes, bytes]]:
    if not isinstance(found, list):
        raise _refusal(where, "model.merges", found, "a list of pairs of tokens")
    pairs = []
    for index, merge in enumerate(found):
        field = f"model.merges[{index}]"
        names = merge.split(" ") if isinstance(merge, str) else merge
        if not (isinstance(names, list) and len(names) == 2 and all(isinstance(name, str) for name in names)):
            raise _refusal(where, field, merge, "two tokens, as in ['Ġ', 't']")
        left, right = map(unspell, names)
        for name, token in zip(names, (left, right), strict=True):
            if token not in vocab:
                raise _refusal(where, field, name, "a token of model.vocab")
        if left + right not in vocab:
            raise _refusal(where, field, merge, "a pair whose result is in model.vocab")
        pairs.append((left, right))
    _check_order(pairs, where)
    return pairs


def _check_order(pairs: list[tuple[bytes, bytes]], where: str) -> None:
    """Refuse a merge that could be applied only after a later one.

    Files made from tiktoken's ranks list every pair that makes a token, also such with a part that comes later. These
    never apply: where the token is made before its parts are, the parts never stand side by side.
    """
    in_order = _makeable(pairs)
    made_at: dict[bytes, int] = {}
    for (left, right), index in in_order.items():
        made_at.setdefault(left + right, index)
    for index, pair in enumerate(pairs):
        if pair in in_order:
            continue
        parts_at = [made_at.get(part, -1 if len(part) == 1 else len(pairs)) for part in pair]
        if made_at.get(pair[0] + pair[1], len(pairs)) > max(parts_at):
            raise _refusal(
                where,
                f"model.merges[{index}]",
                list(map(spell, pair)),
                "a pair of bytes or of results of earlier merges",
            )


def _refusal(where: str, field: str, got, expected) -> UserError:
    return UserError(
        f"{where}: {field}: got {_short(got)}, expected {_short(expected)}; "
        "of Hugging Face's tokenizers byte-level BPE is supported: use another one, or train one here"
    )


def _short(value) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


# ---- Reading tiktoken's ranks.


def read_ranks(text: bytes, where: str, pattern: str = "cl100k") -> Parts:
    """Return the parts of tiktoken's ranks: a line "<token in base64> <rank>" for each token; <|endoftext|> is added.

    tiktoken merges the two neighbours whose bytes together have the lowest rank, and takes a piece that is a token
    whole. Only one pair can ever make a token: the two that its bytes merge to below its rank.
    Raises UserError naming the line that is damaged.
    """
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error):
            raise UserError(
                f"{where}: line {number}: got {_short(repr(line))}, expected a token in base64 and its rank"
            ) from None
    if missing := [byte for byte in range(BYTES) if bytes([byte]) not in ranks]:
        raise UserError(f"{where}: the byte {missing[0]} has no rank; the file is damaged or of another kind")
    if (
        len(set(ranks.values())) != len(ranks)
        or not 0 <= min(ranks.values()) <= max(ranks.values()) < native.ID_LIMIT - 1
    ):
        raise UserError(f"{where}: ranks must differ and be from 0 to {native.ID_LIMIT - 2}")
    in_order = sorted(ranks, key=ranks.__getitem__)
    pairs = [(token[:cut], token[cut:]) for token in in_order for cut in range(1, len(token))]
    pairs = [(left, right) for left, right in pairs if left in ranks and right in ranks]
    specials = {END_OF_TEXT: max(ranks.values()) + 1}
    return _assemble(ranks, pairs, pattern, specials, ignore_merges=True)


def _makeable(pairs: list[tuple[bytes, bytes]]) -> dict[tuple[bytes, bytes], int]:
    """Return the pairs of bytes or of results of pairs before them, in order, with their places."""
    made = {bytes([byte]) for byte in range(BYTES)}
    kept: dict[tuple[bytes, bytes], int] = {}
    for index, (left, right) in enumerate(pairs):
        if left in made and right in made:
            made.add(left + right)
            kept.setdefault((left, right), index)
    return kept


def _assemble(
    vocab: dict[bytes, int], pairs: list[tuple[bytes, bytes]], pattern: str, specials, ignore_merges
) -> Parts:
    """Return the parts, with only those merges that are ever applied: files may list several for one token."""
    kept = _applied(list(_makeable(pairs)))
    tokens = [bytes([byte]) for byte in range(BYTES)] + [left + right for left, right in kept]
    number = {token: index for index, token in enumerate(tokens)}
    merges = tuple((number[left], number[right]) for left, right in kept)
    whole = tuple((token, index) for token, index in vocab.items() if token not in number)
    ids = tuple(vocab[token] for token in tokens)
    return Parts(merges, pattern, ids, tuple(specials.items()), whole, ignore_merges)


def _applied(pairs: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    number = {bytes([byte]): byte for byte in range(BYTES)}
    results = [number.setdefault(left + right, len(number)) for left, right in pairs]
    joined = np.array([(number[left], number[right]) for left, right in pairs], np.uint32).reshape(-1, 2)
    fires = native.fires(joined, np.array(results, np.uint32))
    return [pair for pair, kept in zip(pairs, fires.tolist(), strict=True) if kept]
