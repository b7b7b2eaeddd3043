"""Ownership: which rank updates which weights, so that the moments of each weight are on one device only.

Rajbhandari et al. 2020, "ZeRO: memory optimizations toward training trillion parameter models", arXiv:1910.02054,
stage 1. All ranks have all weights and gradients.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hipgpt.compute.communicator import BROADCAST, BROADCAST_ROUNDED
from hipgpt.compute.device import Device
from hipgpt.compute.plan import Plan
from hipgpt.compute.process_group import ProcessGroup
from hipgpt.compute.tensor import ALIGNMENT_ELEMENTS, Arena, DType, Field

Range = tuple[int, int]  # the first element of a flat arena, and the one after the last


@dataclass(frozen=True)
class Piece:
    """The elements first <= i < last of a field, which one rank updates."""

    field: Field
    first: int
    last: int

    @property
    def part(self) -> Field:
        """The piece as a field: the field itself if it is whole, otherwise whole matrices or single elements."""
        if self.last - self.first == self.field.elements:
            return self.field
        if not self.field.matrices:
            return dataclasses.replace(self.field, shape=(self.last - self.first,))
        columns = self.field.shape[-1]
        ends = list(itertools.accumulate(self.field.matrices))
        kept = [rows for rows, end in zip(self.field.matrices, ends, strict=True) if self._holds(end * columns)]
        return dataclasses.replace(self.field, shape=(sum(kept), columns), matrices=tuple(kept))

    def _holds(self, end: int) -> bool:
        return self.first < end <= self.last


class Ownership:
    """The pieces of an arena of weights by rank. Each rank has about as many elements as the others.

    whole_matrices: whether fields with matrices are divided between matrices only, and apart from the other fields.
    """

    def __init__(self, weights: Arena, group: ProcessGroup, whole_matrices: bool):
        self.weights, self.group = weights, group
        matrices = [field for field in weights.fields if whole_matrices and field.matrices]
        others = [dataclasses.replace(field, matrices=()) for field in weights.fields if field not in matrices]
        order = [field.name for field in weights.fields]
        shares = zip(_divided(others, group.size), _divided(matrices, group.size), strict=True)
        self.pieces = [sorted([*a, *b], key=lambda piece: order.index(piece.field.name)) for a, b in shares]

    @property
    def own(self) -> list[Piece]:
        """The pieces of this rank, in the order of the weights."""
        return self.pieces[self.group.rank]

    def range_of(self, piece: Piece) -> Range:
        """Return a piece's elements in the flat arena. The padding after a field belongs to the field's last piece."""
        start = self.weights.offsets[piece.field.name] // DType.F32.size_bytes
        last = piece.last if piece.last < piece.field.elements else padded(piece.last)
        return start + piece.first, start + last

    def ranges(self, pieces: Iterable[Piece]) -> list[Range]:
        """Return the elements of pieces in the flat arena; neighbours become one range."""
        found: list[Range] = []
        for first, last in map(self.range_of, pieces):
            if found and found[-1][1] == first:
                found[-1] = found[-1][0], last
            else:
                found.append((first, last))
        return found

    def broadcast(self, plan: Plan, arena: Arena) -> None:
        """Record, if there are several ranks, that all get the weights, or their rounded copies, from their owners."""
        collective = BROADCAST if arena.flat.dtype is DType.F32 else BROADCAST_ROUNDED
        for root, first, last in self._of_all_ranks():
            plan(collective, arena.flat.rows(first, last), root=root)

    def gather(self, device: Device, arena: Arena, fields: Sequence[Field]) -> dict[str, NDArray[Any]]:
        """Return, on rank 0, host copies of fields by the arena's name and their own, from the ranks that own them.

        arena: the weights, or an arena that has the pieces of this rank.
        """
        found: dict[str, NDArray[Any]] = {}
        for rank, piece in self._pieces_of(fields):
            values = np.empty(piece.last - piece.first, np.float32)
            if rank == self.group.rank:
                read = device.read(arena[piece.field.name]).reshape(-1)
                values = read[piece.first : piece.last] if read.size == piece.field.elements else read
            self.group.bring(rank, values)
            if self.group.leads:
                name = f"{arena.name}.{piece.field.name}"
                if values.size == piece.field.elements:
                    found[name] = values.reshape(piece.field.shape)
                else:
                    found.setdefault(name, np.empty(piece.field.shape, np.float32))
                    found[name].reshape(-1)[piece.first : piece.last] = values
        return found

    def scatter(
        self, device: Device, arena: Arena, fields: Sequence[Field], arrays: Mapping[str, NDArray[Any]]
    ) -> None:
        """Write the pieces of fields to an arena of their owner. arrays: those of `gather`, on rank 0."""
        for rank, piece in self._pieces_of(fields):
            values = np.empty(piece.last - piece.first, np.float32)
            if self.group.leads:
                values = arrays[f"{arena.name}.{piece.field.name}"].reshape(-1)[piece.first : piece.last]
            self.group.take(rank, values)
            if rank == self.group.rank:
                device.write(arena[piece.field.name], values.reshape(piece.part.shape))

    def _pieces_of(self, fields: Sequence[Field]) -> Iterator[tuple[int, Piece]]:
        names = {field.name for field in fields}
        for rank, pieces in enumerate(self.pieces):
            yield from ((rank, piece) for piece in pieces if piece.field.name in names)

    def _of_all_ranks(self) -> Iterator[tuple[int, int, int]]:
        if self.group.size > 1:
            for rank, pieces in enumerate(self.pieces):
                yield from ((rank, *elements) for elements in self.ranges(pieces))


def padded(elements: int) -> int:
    return -(-elements // ALIGNMENT_ELEMENTS) * ALIGNMENT_ELEMENTS


def _divided(fields: Sequence[Field], ranks: int) -> list[list[Piece]]:
    """Return the pieces of fields by rank: consecutive ones of about equal size."""
    total, rank, done = sum(field.elements for field in fields), 0, 0
    shares: list[list[Piece]] = [[] for _ in range(ranks)]
    for field in fields:
        first = 0
        while first < field.elements:
            while rank < ranks - 1 and done >= total * (rank + 1) // ranks:
                rank += 1
            last = _cut(field, first + total * (rank + 1) // ranks - done)
            shares[rank].append(Piece(field, first, last))
            done, first = done + last - first, last
    return shares


def _cut(field: Field, wanted: int) -> int:
    """Return the first element, from `wanted` on, before which a field may be divided; at most the field's end."""
    if field.matrices:
        ends = [rows * field.shape[-1] for rows in itertools.accumulate(field.matrices)]
        return next((end for end in ends if end >= wanted), ends[-1])
    return min(padded(wanted), field.elements)
