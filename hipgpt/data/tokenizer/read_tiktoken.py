"""Read tiktoken's ranks."""

import base64
import binascii

from hipgpt.base.errors import UserError
from hipgpt.data.tokenizer import native
from hipgpt.data.tokenizer.pretokenize import END_OF_TEXT
from hipgpt.data.tokenizer.reference import BYTES
from hipgpt.data.tokenizer.renumber import assemble, shortened
from hipgpt.data.tokenizer.write_formats import Parts, spell_all

LONGEST_SPELLING = 4096  # tokens of published files have 128 bytes at most; every cut of a token is looked up


def read_ranks(text: bytes, where: str, pattern: str) -> Parts:
    """Return the parts of tiktoken's ranks: a line "<token in base64> <rank>" for each token; <|endoftext|> is added.

    tiktoken merges the two neighbours whose joined bytes have the lowest rank; a piece that is a token is not split at
    all. Only one pair can ever become a given token: the two tokens that its bytes merge to below its rank.
    Raises UserError, naming the line, if the file is damaged.
    """
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        try:
            token, rank = line.split()
            if len(token) > LONGEST_SPELLING:
                raise UserError(
                    f"{where}: line {number}: got a token of {len(token):,} characters in base64, expected at most "
                    f"{LONGEST_SPELLING:,}; the file is damaged or of another kind"
                )
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error):
            raise UserError(
                f"{where}: line {number}: got {shortened(repr(line))}, expected a token in base64 and its rank"
            ) from None
    if missing := [byte for byte in range(BYTES) if bytes([byte]) not in ranks]:
        raise UserError(f"{where}: there is no rank for the byte {missing[0]}; the file is damaged or of another kind")
    if (
        len(set(ranks.values())) != len(ranks)
        or not 0 <= min(ranks.values()) <= max(ranks.values()) < native.ID_LIMIT - 1
    ):
        raise UserError(f"{where}: ranks must differ and be from 0 to {native.ID_LIMIT - 2}")
    in_order = sorted(ranks, key=ranks.__getitem__)
    pairs = [(token[:cut], token[cut:]) for token in in_order for cut in range(1, len(token))]
    merges = [
        (ranks[left], ranks[right], ranks[left + right]) for left, right in pairs if left in ranks and right in ranks
    ]
    vocab = dict(zip(spell_all([*ranks]), ranks.values(), strict=True))
    return assemble(vocab, merges, pattern, {END_OF_TEXT: max(ranks.values()) + 1}, True, where)
