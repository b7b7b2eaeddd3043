"""Which launches of a plan wait for which: those that share memory, unless both only read it."""

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hipgpt.compute.launch import Launch


@dataclass(frozen=True)
class Use:
    """A range of bytes that a launch reads, or writes and perhaps reads too."""

    address: int
    size_bytes: int
    writes: bool


def uses(launch: Launch) -> list[Use]:
    """Return the memory of a launch's tensors."""
    pairs = zip(launch.op.arguments, launch.tensors, strict=True)
    return [Use(tensor.address, tensor.size_bytes, argument.writes) for argument, tensor in pairs if tensor]


def predecessors(launches: Sequence[Iterable[Use]]) -> list[list[int]]:
    """Return for each launch, given by its memory, the earlier ones that it waits for.

    A launch that it waits for through another one is left out.
    """
    memory, found = _Users(), []
    waits_for: list[int] = []  # all of them, directly or not, as bits
    for index, used in enumerate(launches):
        earlier = set().union(*(memory.add(index, use) for use in used)) - {index}
        indirect = 0
        for other in earlier:
            indirect |= waits_for[other]
        found.append(sorted(other for other in earlier if not indirect >> other & 1))
        waits_for.append(indirect | sum(1 << other for other in earlier))
    return found


class _Users:
    """The launches that have last used each byte: the one that wrote it, and those that have read it since.

    Range i of memory begins at starts[i] and ends where the next one begins.
    """

    def __init__(self) -> None:
        self._starts, self._writer, self._readers = [0], [frozenset[int]()], [frozenset[int]()]

    def add(self, index: int, use: Use) -> set[int]:
        """Add a launch to the users of its memory; return the earlier launches that it has to wait for."""
        first, last = self._split(use.address), self._split(use.address + use.size_bytes)
        found = set().union(*self._writer[first:last])
        if use.writes:
            found.update(*self._readers[first:last])
            self._starts[first:last] = [use.address]
            self._writer[first:last], self._readers[first:last] = [frozenset([index])], [frozenset()]
        else:
            self._readers[first:last] = [readers | {index} for readers in self._readers[first:last]]
        return found

    def _split(self, address: int) -> int:
        """Return the number of the range that begins at an address, which there is from now on."""
        at = bisect.bisect_left(self._starts, address)
        if at == len(self._starts) or self._starts[at] != address:
            self._starts.insert(at, address)
            self._writer.insert(at, self._writer[at - 1])
            self._readers.insert(at, self._readers[at - 1])
        return at
