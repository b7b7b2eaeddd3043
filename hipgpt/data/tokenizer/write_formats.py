"""Write tokenizers as Hugging Face's tokenizer.json for byte-level BPE, and as tiktoken's ranks.

read_huggingface.py and read_tiktoken.py read them. tokenizer.json spells bytes with GPT-2's characters: a printable
byte as itself, any other byte as a character above U+00FF (" " is "Ġ").
"""

import base64
import json
from collections.abc import Sequence, Sized
from itertools import accumulate
from typing import Any, NamedTuple, TypeVar

from hipgpt.data.tokenizer.pretokenize import END_OF_TEXT, PATTERNS
from hipgpt.data.tokenizer.reference import BYTES, Pair, spell_merges

_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_OTHERS = [byte for byte in range(BYTES) if byte not in _PRINTABLE]
BYTE_CHARACTERS = {byte: chr(byte) for byte in _PRINTABLE} | {byte: chr(BYTES + i) for i, byte in enumerate(_OTHERS)}
_NO_BYTE = "\ufffd"
_BYTES = {ord(character): chr(byte) for byte, character in BYTE_CHARACTERS.items()}
_BYTES |= {code: _NO_BYTE for code in range(BYTES) if code not in _BYTES}
Joined = TypeVar("Joined", str, bytes)
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
DIGITS = {"type": "Digits", "individual_digits": True}
NFC = {"type": "NFC"}


class Parts(NamedTuple):
    """The content of a tokenizer; hipgpt.data.tokenizer.tokenizer.Tokenizer describes the fields."""

    merges: tuple[Pair, ...]
    pattern: str
    ids: tuple[int, ...]
    specials: tuple[tuple[str, int], ...]
    whole: tuple[tuple[bytes, int], ...]
    ignore_merges: bool
    nfc: bool = False


def spell(token: bytes) -> str:
    """Return the token in GPT-2's byte characters."""
    return token.decode("latin-1").translate(BYTE_CHARACTERS)


def spell_all(tokens: list[bytes]) -> list[str]:
    """Return spell(token) of each token."""
    return _cut(spell(b"".join(tokens)), tokens)


def unspell_all(names: list[str]) -> list[bytes | None]:
    """Return the bytes that names in GPT-2's characters spell; None for a name with any other character."""
    try:
        return [*_cut("".join(names).translate(_BYTES).encode("latin-1"), names)]
    except UnicodeEncodeError:
        return [unspell_all([name])[0] for name in names] if len(names) > 1 else [None]


def _cut(joined: Joined, names: Sequence[Sized]) -> list[Joined]:
    """Return the joined names as a list. Each character stands for one byte."""
    ends: list[int] = [*accumulate(map(len, names))]
    return [joined[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


def write_json(parts: Parts) -> str:
    """Return the text of tokenizer.json. Equal parts give equal text."""
    return json.dumps(tokenizer_document(parts), indent=2, ensure_ascii=False) + "\n"


def tokenizer_document(parts: Parts) -> dict[str, Any]:
    """Return the content of tokenizer.json."""
    names = spell_all(spell_merges(parts.merges))
    vocab = {**dict(zip(names, parts.ids, strict=True)), **{spell(token): index for token, index in parts.whole}}
    vocab |= {content: index for content, index in parts.specials if content == END_OF_TEXT}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": index, "content": content, **flags} for content, index in parts.specials],
        "normalizer": NFC if parts.nfc else None,
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


def _pre_tokenizer(pattern: str) -> dict[str, Any]:
    if pattern == "gpt2":
        return BYTE_LEVEL
    if pattern == "smollm":
        return {"type": "Sequence", "pretokenizers": [DIGITS, BYTE_LEVEL]}
    split = {"type": "Split", "pattern": {"Regex": PATTERNS[pattern]}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, {**BYTE_LEVEL, "use_regex": False}]}


def write_ranks(parts: Parts) -> str:
    """Return tiktoken's ranks: a line "<token in base64> <id>" for each token that is not special."""
    tokens = dict(zip(spell_merges(parts.merges), parts.ids, strict=True)) | dict(parts.whole)
    rows = sorted(tokens.items(), key=lambda item: item[1])
    return "".join(f"{base64.b64encode(token).decode()} {index}\n" for token, index in rows)


def tokenizer_config(context_tokens: int, end_of_text: str = END_OF_TEXT) -> dict[str, str | int | list[str]]:
    """Return the content of tokenizer_config.json, which transformers reads in addition to tokenizer.json."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": end_of_text,
        "eos_token": end_of_text,
        "pad_token": end_of_text,
        "padding_side": "left",  # generation continues after the last token
        "model_max_length": context_tokens,
        "clean_up_tokenization_spaces": False,
        # without it, transformers 4 adds token_type_ids, and GPT-2 then adds a token's embedding to every position
        "model_input_names": ["input_ids", "attention_mask"],
    }
