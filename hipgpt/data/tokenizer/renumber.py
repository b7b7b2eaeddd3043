"""Renumber the tokens of foreign merges: bytes first, then tokens in the order in which merges make them."""

import json

import numpy as np

from hipgpt.base.errors import UserError
from hipgpt.data.tokenizer import native
from hipgpt.data.tokenizer.reference import BYTES
from hipgpt.data.tokenizer.write_formats import BYTE_CHARACTERS, Parts, unspell_all

MergeIds = tuple[int, int, int]  # of left, right and their result


def unsupported(where: str, field: str, got: object, expected: object) -> UserError:
    return UserError(
        f"{where}: {field}: got {shortened(got)}, expected {shortened(expected)}; "
        "only byte-level BPE is supported: use another tokenizer, or train one here"
    )


def shortened(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def assemble(
    vocab: dict[str, int],
    merges: list[MergeIds],
    pattern: str,
    specials: dict[str, int],
    ignore_merges: bool,
    where: str,
) -> Parts:
    """Return the parts with the merges that are applied to some text. A file may list several merges for one token.

    vocab: ids by names in GPT-2's characters. Tokens are numbered in the order in which the merges make them, and then
    again without those that no merge makes. Raises UserError if the order of the merges is not supported.
    """
    number = {vocab[BYTE_CHARACTERS[byte]]: byte for byte in range(BYTES)}
    pairs: list[int] = []
    results: list[int] = []
    for left, right, result in merges:
        if left in number and right in number:
            pairs += number[left], number[right]
            results.append(number.setdefault(result, len(number)))
    if len(results) < len(merges):
        _check_order(merges, vocab, where)
    joined, made = np.array(pairs, np.uint32).reshape(-1, 2), np.array(results, np.uint32)
    fires = native.fires(joined, made)
    reached = np.concatenate([np.arange(BYTES), made[fires]])
    renumbered = np.zeros(len(number), np.uint32)
    renumbered[reached] = np.arange(len(reached))
    ids = np.array([*number])[reached].tolist()
    used = {*ids}
    rest = [name for name, index in vocab.items() if index not in used]
    return Parts(
        tuple(map(tuple, renumbered[joined[fires]].tolist())),
        pattern,
        tuple(ids),
        tuple(specials.items()),
        tuple((token, vocab[name]) for token, name in zip(unspell_all(rest), rest, strict=True) if token is not None),
        ignore_merges,
    )


def _check_order(merges: list[MergeIds], vocab: dict[str, int], where: str) -> None:
    """Raise UserError for a merge that could be applied only after a later one.

    Files made from tiktoken's ranks list every pair that joins to a token, even if a part of the pair is a later token.
    Such a merge is never applied: if the token is made before its parts, the parts never become neighbours.
    """
    never = len(merges)
    made_at = {vocab[character]: -1 for character in BYTE_CHARACTERS.values()}
    in_order = set()
    for index, (left, right, result) in enumerate(merges):
        if left in made_at and right in made_at:
            made_at.setdefault(result, index)
            in_order.add((left, right))
    for index, (left, right, result) in enumerate(merges):
        parts_at = max(made_at.get(left, never), made_at.get(right, never))
        if (left, right) not in in_order and made_at.get(result, never) > parts_at:
            pair = [next(name for name, token in vocab.items() if token == part) for part in (left, right)]
            raise unsupported(where, f"model.merges[{index}]", pair, "a pair of bytes or of results of earlier merges")
