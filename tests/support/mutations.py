"""Mutations of bytes and of documents, drawn from a random.Random, so that a seed gives the same ones again."""

import copy
import random
from typing import Any

INTEGERS = (
    0,
    1,
    -1,
    2,
    127,
    255,
    256,
    65535,
    1 << 24,
    (1 << 31) - 1,
    1 << 31,
    1 << 40,
    (1 << 63) - 1,
    1 << 63,
    1 << 70,
)
HOSTILE = (None, True, False, *INTEGERS, 0.5, 1e308, float("inf"), float("nan"), "", "\0", "../x", "a\nb", "\x1b[2J",
    "{x}", "\ud800", "é语", "9" * 5000, "1e400", [], {}, [[]], [None], {"a": 1}, {"": {}})  # fmt: skip


def mutated_bytes(draw: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """Return data after one to four mutations: flipped bits, cuts, copies, numbers, pieces of others."""
    result = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        begin, end = sorted(draw.randrange(len(result) + 1) for _ in range(2))
        end = min(end, begin + draw.choice((1, 4, 16, 256, 1 << 20)))
        match draw.randrange(8):
            case 0 | 1 if result:
                result[draw.randrange(len(result))] ^= 1 << draw.randrange(8)
            case 2:
                del result[begin:]
            case 3:
                del result[begin:end]
            case 4:
                result[begin:begin] = result[begin:end] * draw.randint(1, 3)
            case 5:
                number = draw.choice(INTEGERS) & (1 << 64) - 1
                width = draw.choice((1, 2, 4, 8))
                written = (number & (1 << 8 * width) - 1).to_bytes(width, draw.choice(("little", "big")))
                result[begin : begin + width] = written
            case 6:
                other = draw.choice([data, *others])
                place = draw.randrange(len(other) + 1)
                result[begin:end] = other[place : place + draw.choice((4, 64, 4096))]
            case _:
                result[begin:begin] = draw.randbytes(draw.choice((1, 8, 100)))
    return bytes(result)


def mutated_document(draw: random.Random, document: Any) -> Any:
    """Return a copy of lists, maps and values after one to three of them were replaced, removed, doubled or renamed."""
    root = [copy.deepcopy(document)]
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        places = [(holder, key) for holder in _holders(root) for key in _keys(draw, holder)]
        holder, key = draw.choice(places)
        match draw.randrange(6):
            case 0 if holder is not root:
                del holder[key]
            case 1:
                other, source = draw.choice(places)
                holder[key] = copy.deepcopy(other[source]) if source in _all_keys(other) else None
            case 2 if isinstance(holder, dict):
                holder[draw.choice(("", "x", "\x1b[2J", f"{key} ", "\ud800", "from"))] = holder.pop(key)
            case 3 if isinstance(holder, list) and holder is not root:
                holder.insert(key, copy.deepcopy(holder[key]))
            case _:
                holder[key] = copy.deepcopy(draw.choice(HOSTILE))
    return root[0]


def _holders(root: Any) -> list[Any]:
    found, waiting = [], [root]
    while waiting:
        one = waiting.pop()
        if isinstance(one, (dict, list)) and one:
            found.append(one)
            waiting += one.values() if isinstance(one, dict) else one[:50]
    return found


def _all_keys(holder: Any) -> list[Any]:
    return list(holder) if isinstance(holder, dict) else list(range(len(holder)))


def _keys(draw: random.Random, holder: Any) -> list[Any]:
    """Return a few of the holder's keys, so that a long list does not draw all mutations to itself."""
    keys = _all_keys(holder)
    return draw.sample(keys, min(len(keys), 12))
