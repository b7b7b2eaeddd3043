"""Write tests/support/hugging_face/*.json: small tokenizers that Hugging Face trained, and their ids of hostile texts.

    python tests/support/hugging_face_ids.py        (needs the package tokenizers: 0.23 wrote them; the tests do not)

A file has the tokenizer.json as it was saved, texts with their ids, and for every character that Unicode 3.2 knew, one
by one between others, the SHA-256 of the ids (little-endian uint32): later characters are letters to one Unicode
version and nothing yet to another.
"""

import hashlib
import json
import random
import unicodedata
from pathlib import Path

from hipgpt.data.tokenizer.pretokenize import END_OF_TEXT, PATTERNS

FOLDER = Path(__file__).parent / "hugging_face"
VOCAB_SIZE = 420
SAMPLE = """It's the lark's song; THEY'LL say we've 1,000,000 larks, I'm told. \t\r\n\n  Don't you'd 're   (think) "so"?
Été naïve 你好\u3000世界 😀!! the the the lark larks\n \n  x = 12345;\n
for (int i = 0; i < 2024; ++i) { sum += row[i]; }
aaaa aaaaaaaa\n        indented\n\n\n\n----====____....!!!!\u0301\u0301 10 100 1000 10000\n"""
SPANS = [
    " ",
    "  ",
    "\n",
    "\r\n",
    "\t",
    "\r",
    "\v",
    "\x00",
    "\x1c",
    "\x7f",
    "\x85",
    "\xa0",
    "\u2003",
    "\u2028",
    "\u3000",
]
SPANS += [
    "'",
    "'s",
    "'ll",
    "'LL",
    "'\u017f",
    "'re",
    "\u2019s",
    "a",
    "Ab",
    "the",
    "7",
    "1234567",
    "\u0661",
    "½",
    "Ⅳ",
    "²",
]
SPANS += [
    "!",
    "!!",
    "--",
    "\u201c",
    "\u200b",
    "\ufeff",
    "é",
    "e\u0301",
    "\u0301",
    "你",
    "ß",
    "ﬁ",
    "\u0e33",
    "😀",
    "\ue000",
]
SPANS += ["👩\u200d👩", "\U0010ffff", "\n\n  ", " \n", END_OF_TEXT, END_OF_TEXT[:5]]
NUM_TEXTS = 250


def texts() -> list[str]:
    """Return spans of every kind next to each other, each alone and repeated, on both sides of a run of letters."""
    draw = random.Random(0)
    mixed = ["".join(draw.choice(SPANS) for _ in range(draw.randint(1, 14))) for _ in range(NUM_TEXTS)]
    return ["", *SPANS, *(span * 40 for span in SPANS), *(f"a{span}a {span}{span}b" for span in SPANS), *mixed]


def characters() -> str:
    """Return every character that Unicode 3.2 had assigned, between letters, numbers, others and white space."""
    known = [chr(c) for c in range(0x110000) if unicodedata.ucd_3_2_0.category(chr(c)) not in ("Cn", "Cs")]
    return "".join(f"a{c}1{c}!{c}\n{c} " for c in known)


def hash_of(ids) -> str:
    return hashlib.sha256(b"".join(int(token).to_bytes(4, "little") for token in ids)).hexdigest()


def main() -> None:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    for name, pattern in PATTERNS.items():
        tokenizer = Tokenizer(models.BPE())
        split = pre_tokenizers.Split(Regex(pattern), "isolated")
        of_split = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
        of_digits = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)])
        others = {"gpt2": pre_tokenizers.ByteLevel(False), "smollm": of_digits}
        tokenizer.pre_tokenizer = others.get(name, of_split)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        options = {"show_progress": False, "special_tokens": [END_OF_TEXT]}
        trainer = trainers.BpeTrainer(vocab_size=VOCAB_SIZE, initial_alphabet=alphabet, **options)
        tokenizer.train_from_iterator([SAMPLE] * 3, trainer)
        record = {
            "tokenizer": json.loads(tokenizer.to_str()),
            "ids": {text: tokenizer.encode(text).ids for text in texts()},
            "ids_of_characters_sha256": hash_of(tokenizer.encode(characters()).ids),
        }
        (FOLDER / f"{name}.json").write_text(json.dumps(record, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
