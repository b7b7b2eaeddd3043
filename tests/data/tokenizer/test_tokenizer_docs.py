"""docs/tokenizer.md: its tables agree with the tokenizer, and its Python runs."""

import doctest
from collections import Counter

import pytest

from hipgpt.base.paths import ROOT
from hipgpt.data.tokenizer import reference as bpe
from hipgpt.data.tokenizer.pretokenize import split_pieces
from hipgpt.data.tokenizer.tokenizer import train_merges

PAGE = ROOT / "docs" / "tokenizer.md"
TEXT, VOCAB_SIZE = b"low low low lower lowest", 262
ENCODED = b"slow lower"
MERGES = train_merges([TEXT], VOCAB_SIZE)
PAIRS = [tuple(pair) for pair in MERGES["pair"].tolist()]
NAMES = bpe.spell_merges(PAIRS)


def shown(tokens) -> str:
    return " ".join(f"`{NAMES[token].decode()}`" for token in tokens)


def table(header: str, rows) -> str:
    columns = header.split(" | ")
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def pieces() -> str:
    counts = Counter(split_pieces(TEXT))
    return table("piece | count", ((f"`{piece.decode()}`", count) for piece, count in counts.items()))


def merges() -> str:
    words = {piece: list(piece) for piece in split_pieces(TEXT)}
    tokens, rows = len(TEXT), []
    for rank, (left, right) in enumerate(PAIRS):
        words = {piece: bpe.replace_pair(word, (left, right), bpe.BYTES + rank) for piece, word in words.items()}
        tokens -= int(MERGES["applied"][rank])
        assert tokens == len(bpe.encode(TEXT, PAIRS[: rank + 1]))
        spelled = ", ".join(shown(word) for word in words.values())
        rows.append((bpe.BYTES + rank, shown((left, right)), MERGES["count"][rank], tokens, spelled))
    return table("id | pair | count | tokens | the pieces now", rows)


def encoding() -> str:
    steps = [("", *(shown(piece) for piece in split_pieces(ENCODED)))]
    for rank, (left, right) in enumerate(PAIRS):
        words = [bpe.encode(piece, PAIRS[: rank + 1]) for piece in split_pieces(ENCODED)]
        row = tuple(shown(word) for word in words)
        if row != steps[-1][1:]:
            steps.append((f"{shown((left, right))} is {bpe.BYTES + rank}", *row))
    return table("merge | first piece | second piece", steps)


@pytest.mark.parametrize("example", [pieces, merges, encoding], ids=lambda example: example.__name__)
def test_a_table_of_the_worked_example_is_what_comes_out(example):
    after_mark = PAGE.read_text().partition(f"<!-- {example.__name__} -->\n\n")[2]
    expected = example()
    assert after_mark[: len(expected)] == expected, f"write this below <!-- {example.__name__} -->:\n{expected}"


def test_the_python_on_the_page_is_true():
    result = doctest.testfile(str(PAGE), module_relative=False)
    assert result.attempted > 0
    assert result.failed == 0
