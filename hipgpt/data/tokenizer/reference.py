"""Byte-pair encoding in plain Python. It defines the result of kernels/bpe/api.cpp; a test compares the two.

Definition. Tokens 0 to 255 are the bytes. Training splits the text into pieces (pretokenize.py) and starts with one
token for each byte. Then it repeats three steps. Count every pair of neighbouring tokens inside the pieces; in "aaaa"
the pair (a, a) counts three times. Make the pair with the highest count the next token; ties go to the smallest (left
id, right id). Replace that pair everywhere, from left to right. Encoding starts with bytes too. In each piece it
applies the earliest merge that fits, from left to right, until none fits. The last id, after all merges, is
<|endoftext|>.

Corollary. The merges depend on how often each piece occurs and on nothing else. They depend neither on the order of the
text nor on how it is divided into chunks or among threads, as long as no cut falls inside a piece (chunks.py).

Worked example. (l, o) and (o, w) both occur 5 times, and (l, o) is the smaller pair. At the end several pairs occur
once, and (s, t) = (115, 116) is smaller than (" lowe", r) = (259, 114):

>>> merges = train(b"low low low lower lowest", 262)
>>> names = spell_merges(merges)
>>> [(names[left], names[right]) for left, right in merges]
[(b'l', b'o'), (b'lo', b'w'), (b' ', b'low'), (b' low', b'e'), (b's', b't')]
>>> encode(b"slow lower", merges)
[115, 257, 259, 114]
>>> [names[token] for token in encode(b"slow lower", merges)]
[b's', b'low', b' lowe', b'r']

Gage 1994, "A New Algorithm for Data Compression"; Sennrich, Haddow & Birch 2016, arXiv:1508.07909.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from hipgpt.data.tokenizer.pretokenize import END_OF_TEXT, split_pieces

Pair = tuple[int, int]
LONGEST_TOKEN_BYTES = 1 << 24  # merges that double a token 60 times would spell more than any memory holds
BYTES = 256


def train(text: bytes, vocab_size: int) -> list[Pair]:
    """Return the merges in order: vocab_size - 257 of them, or fewer if no pair is left."""
    words = Counter(piece for document in text.split(END_OF_TEXT.encode()) for piece in split_pieces(document))
    tokens = {word: list(word) for word in words}
    merges: list[Pair] = []
    while len(merges) < vocab_size - BYTES - 1:
        counts: Counter[Pair] = Counter()
        for word, count in words.items():
            for pair in zip(tokens[word], tokens[word][1:]):  # noqa: B905 - the last token has no right neighbour
                counts[pair] += count
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        for word in words:
            tokens[word] = replace_pair(tokens[word], best, BYTES + len(merges))
        merges.append(best)
    return merges


def replace_pair(tokens: list[int], pair: Pair, merged: int) -> list[int]:
    """Return tokens with each occurrence of pair, from left to right, replaced by the token `merged`."""
    replaced, at = [], 0
    while at < len(tokens):
        found = tuple(tokens[at : at + 2]) == pair
        replaced.append(merged if found else tokens[at])
        at += 2 if found else 1
    return replaced


def encode(text: bytes, merges: list[Pair]) -> list[int]:
    """Return the ids of the text. The literal <|endoftext|> becomes the last id of the vocabulary."""
    rank = {pair: index for index, pair in enumerate(merges)}
    ids: list[int] = []
    for index, document in enumerate(text.split(END_OF_TEXT.encode())):
        if index > 0:
            ids.append(BYTES + len(merges))
        for piece in split_pieces(document):
            tokens = list(piece)
            while fitting := [rank[pair] for pair in zip(tokens, tokens[1:]) if pair in rank]:  # noqa: B905 - as above
                first = min(fitting)
                tokens = replace_pair(tokens, merges[first], BYTES + first)
            ids += tokens
    return ids


def check_merges(merges: Sequence[Pair]) -> None:
    """Raise ValueError unless every merge joins earlier tokens into one of at most LONGEST_TOKEN_BYTES."""
    lengths = [1] * BYTES
    for left, right in merges:
        if not (0 <= left < len(lengths) and 0 <= right < len(lengths)):
            number = len(lengths) - BYTES
            raise ValueError(
                f"merges[{number}]: got {left}, {right}, expected two of the {len(lengths)} tokens before it"
            )
        lengths.append(lengths[left] + lengths[right])
    if (longest := max(lengths)) > LONGEST_TOKEN_BYTES:
        raise ValueError(f"merges: a token of {longest:,} bytes, expected at most {LONGEST_TOKEN_BYTES:,}")


def spell_merges(merges: Iterable[Pair]) -> list[bytes]:
    """Return the bytes of each token: first the 256 bytes, then the result of each merge."""
    table = [bytes([byte]) for byte in range(BYTES)]
    for left, right in merges:
        table.append(table[left] + table[right])
    return table
