"""The tokenizer.json of Hugging Face's `tokenizers`, for the one kind of tokenizer that HipGPT trains.

Its strings spell bytes with GPT-2's characters: a printable byte as itself, any other as a character above U+00FF
(" " is "Ġ"). A file is read by taking its merges, writing the document they should stand in, and comparing: whatever
differs is refused by the name of its field, so nothing foreign is silently ignored.
"""

import json

from hipgpt.errors import UserError
from hipgpt.tokenizer.bpe import BYTES, Pair, token_table
from hipgpt.tokenizer.pretokenize import END_OF_TEXT

_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_OTHERS = [byte for byte in range(BYTES) if byte not in _PRINTABLE]
BYTE_CHARACTERS = {byte: chr(byte) for byte in _PRINTABLE} | {byte: chr(BYTES + i) for i, byte in enumerate(_OTHERS)}


def spell(token: bytes) -> str:
    """Return the token in GPT-2's byte characters."""
    return "".join(map(BYTE_CHARACTERS.__getitem__, token))


def tokenizer_document(merges: list[Pair]) -> dict:
    """Return what tokenizer.json says about a tokenizer with these merges."""
    names = [spell(token) for token in token_table(merges)[:-1]]
    end_of_text = {
        "id": len(names),
        "content": END_OF_TEXT,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [end_of_text],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": {**byte_level, "add_prefix_space": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {name: index for index, name in enumerate([*names, END_OF_TEXT])},
            "merges": [[names[left], names[right]] for left, right in merges],
        },
    }


def write_json(merges: list[Pair]) -> str:
    """Return the text of tokenizer.json: the same merges give the same text."""
    return json.dumps(tokenizer_document(merges), indent=2, ensure_ascii=False) + "\n"


def read_json(text: bytes, where: str) -> list[Pair]:
    """Return the merges of a tokenizer.json.

    Raises UserError, naming the field, if the file is damaged or holds anything that write_json would not write.
    """
    try:
        document = json.loads(text)
    except ValueError as error:  # not UTF-8, or not JSON
        raise UserError(
            f"{where}: not a tokenizer.json ({error}); expected JSON as train_tokenizer writes it"
        ) from error
    model = document.get("model") if isinstance(document, dict) else None
    merges = model.get("merges") if isinstance(model, dict) else None
    if not isinstance(merges, list):
        raise _refusal(where, "model.merges", merges, "a list of pairs of tokens")
    pairs = _parse_merges(merges, where)
    _compare(document, tokenizer_document(pairs), where, "")
    return pairs


def _parse_merges(merges: list, where: str) -> list[Pair]:
    ids = {character: byte for byte, character in BYTE_CHARACTERS.items()}
    pairs = []
    for index, merge in enumerate(merges):
        field = f"model.merges[{index}]"
        if not (isinstance(merge, list) and len(merge) == 2 and all(isinstance(token, str) for token in merge)):
            raise _refusal(where, field, merge, "two tokens, as in ['Ġ', 't']")
        for token in merge:
            if token not in ids:
                raise _refusal(where, field, token, "a token that is a byte or the result of an earlier merge")
        merged = "".join(merge)
        if merged in ids:
            raise _refusal(where, field, merge, "a pair whose result is a new token")
        pairs.append((ids[merge[0]], ids[merge[1]]))
        ids[merged] = len(ids)
    return pairs


def _compare(got, expected, where: str, field: str) -> None:
    """Raise UserError for the first field in which a document differs from the expected one."""
    if isinstance(expected, dict) and isinstance(got, dict):
        for key in [*expected, *(key for key in got if key not in expected)]:
            name = f"{field}.{key}" if field else key
            if key not in got:
                raise _refusal(where, name, "nothing", expected[key])
            if key not in expected:
                raise _refusal(where, name, got[key], "no such field")
            _compare(got[key], expected[key], where, name)
    elif isinstance(expected, list) and isinstance(got, list) and len(got) == len(expected):
        for index, (one, other) in enumerate(zip(got, expected, strict=True)):
            _compare(one, other, where, f"{field}[{index}]")
    elif type(got) is not type(expected) or got != expected:
        raise _refusal(where, field, got, expected)


def _refusal(where: str, field: str, got, expected) -> UserError:
    return UserError(
        f"{where}: {field}: got {_short(got)}, expected {_short(expected)}; "
        "only byte-level BPE as HipGPT trains it is read: train the tokenizer again, or restore the file"
    )


def _short(value) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def tokenizer_config(context_tokens: int) -> dict:
    """Return the content of tokenizer_config.json, which transformers reads beside tokenizer.json."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "model_max_length": context_tokens,
        "clean_up_tokenization_spaces": False,
    }
