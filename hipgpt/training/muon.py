"""Muon for the matrices of the blocks, AdamW for everything else.

Muon's update of a matrix is its momentum with all singular values moved to about 1, by five Newton-Schulz steps. Jordan
et al. 2024, "Muon: an optimizer for hidden layers in neural networks". The steps compute in the dtype of activations.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from hipgpt.compute.catalogue import (
    MUON_DIRECTION,
    MUON_UPDATE,
    NEWTON_SCHULZ_FIRST_POLYNOMIAL,
    NEWTON_SCHULZ_GRAM,
    NEWTON_SCHULZ_POLYNOMIAL,
    NEWTON_SCHULZ_STEP,
)
from hipgpt.compute.device import Device
from hipgpt.compute.plan import Plan
from hipgpt.compute.tensor import Arena, DType, Field, Tensor
from hipgpt.config.settings import TrainingConfig
from hipgpt.training.optimizer import AdamW
from hipgpt.training.ownership import Piece

NEWTON_SCHULZ_STEPS = 5
# elements that are orthogonalized at once, unless a field has more: for a device that wants to stay in its caches, and
# for one where larger batches are never slower
BATCH_ELEMENTS, LARGE_BATCH_ELEMENTS = 1 << 22, 1 << 25


@dataclass(frozen=True)
class Part:
    """`count` matrices of (rows, columns), one after the other, from the row `first` of a field on.

    begin: the first row of the field that this rank owns.
    """

    field: str
    begin: int
    first: int
    count: int
    rows: int
    columns: int

    @property
    def sides(self) -> tuple[int, int]:
        """The smaller and the larger side of a matrix: Newton-Schulz takes tall matrices transposed."""
        return min(self.rows, self.columns), max(self.rows, self.columns)

    @property
    def elements(self) -> int:
        return self.count * self.rows * self.columns

    def of(self, arena: Arena) -> Tensor:
        """Return the matrices (count, rows, columns) in an arena with the fields of the weights."""
        return self._from_row(arena, self.first)

    def of_own(self, arena: Arena) -> Tensor:
        """Return the matrices (count, rows, columns) in an arena with the pieces that this rank owns."""
        return self._from_row(arena, self.first - self.begin)

    def _from_row(self, arena: Arena, first: int) -> Tensor:
        rows = arena[self.field].rows(first, first + self.count * self.rows)
        return rows.view(self.count, self.rows, self.columns)


class Muon(AdamW):
    """The momentum of the matrices, AdamW's moments of the other weights, and the ops of one update.

    first_moment: of all weights; it is the momentum of the matrices. second_moment: of the others. act: the dtype in
    which the matrices are orthogonalized. The learning rate of the matrices is that of AdamW times
    muon_learning_rate_peak / learning_rate_peak.
    """

    whole_matrices = True

    def __init__(self, device: Device, weights: Arena, training: TrainingConfig, act: DType):
        super().__init__(device, weights, training)
        most = BATCH_ELEMENTS if device.traits.cache_bytes else LARGE_BATCH_ELEMENTS
        found = list(batches((piece for piece in self.ownership.own if piece.field.matrices), most))
        # a GPU computes small batches side by side, unless they share a workspace
        apart = not device.traits.cache_bytes and sum(map(_elements, found)) <= most
        groups = [[batch] for batch in found] if apart else [found]
        self._batches = [
            (batch, workspace) for group in groups for batch, workspace in _with_workspace(device, group, act)
        ]

    def _record_updates(
        self, plan: Plan, gradients: Arena, schedule: Tensor, counters: Tensor, copy: Arena | None
    ) -> None:
        self._record_adamw(plan, gradients, schedule, counters, copy)
        for batch, workspace in self._batches:
            self._record_batch(plan, batch, workspace, gradients, schedule, counters, copy)

    def _record_batch(
        self,
        plan: Plan,
        batch: list[Part],
        workspace: Arena,
        gradients: Arena,
        schedule: Tensor,
        counters: Tensor,
        copy: Arena | None,
    ) -> None:
        """Record the update of matrices that all have the same sides."""
        (R, L), M = batch[0].sides, sum(part.count for part in batch)
        shapes = {"x": (M, R, L), "y": (M, R, L), "gram": (M, R, R), "polynomial": (M, R, R)}
        x, y, gram, polynomial = (
            workspace[name].rows(0, math.prod(shape)).view(*shape) for name, shape in shapes.items()
        )
        for part, direction in zip(batch, _parts_of(x, batch), strict=True):
            moved = part.of_own(self.first_moment), part.of(gradients)
            plan(MUON_DIRECTION, direction, *moved, self.norm, clip_norm=self.training.clip_norm)
        for step in range(NEWTON_SCHULZ_STEPS):
            plan(NEWTON_SCHULZ_GRAM, gram, x)
            plan(NEWTON_SCHULZ_POLYNOMIAL if step else NEWTON_SCHULZ_FIRST_POLYNOMIAL, polynomial, gram)
            plan(NEWTON_SCHULZ_STEP, y, polynomial, x)
            x, y = y, x
        ratio = self.training.muon_learning_rate_peak / self.training.learning_rate_peak
        for part, direction in zip(batch, _parts_of(x, batch), strict=True):
            scale = ratio * math.sqrt(max(1.0, part.rows / part.columns))
            tensors = part.of(self.weights), part.of(copy) if copy else None, direction, schedule, counters
            plan(MUON_UPDATE, *tensors, scale=scale, weight_decay=self.training.weight_decay)


def batches(pieces: Iterable[Piece], most: int) -> Iterator[list[Part]]:
    """Yield the parts of the matrices in groups of equal sides, each of at most `most` elements or of one part."""
    by_sides: dict[tuple[int, int], list[Part]] = {}
    for part in (part for piece in pieces for part in parts_of(piece)):
        batch = by_sides.get(part.sides, [])
        if batch and _elements(batch) + part.elements > most:
            yield by_sides.pop(part.sides)
        by_sides.setdefault(part.sides, []).append(part)
    yield from by_sides.values()


def parts_of(piece: Piece) -> Iterator[Part]:
    """Yield the parts of a piece: neighbouring matrices of one shape are one part."""
    columns, sizes = piece.field.shape[-1], list(piece.part.matrices)
    begin = first = piece.first // columns
    while sizes:
        count = next((i for i, rows in enumerate(sizes) if rows != sizes[0]), len(sizes))
        yield Part(piece.field.name, begin, first, count, sizes[0], columns)
        first += count * sizes[0]
        sizes = sizes[count:]


def _with_workspace(device: Device, group: list[list[Part]], act: DType) -> Iterator[tuple[list[Part], Arena]]:
    """Yield each batch of a group with a workspace that all of them share."""
    sizes = {"x": _elements, "y": _elements, "gram": _squares, "polynomial": _squares}
    fields = [Field(name, (max(map(size, group), default=1),), act) for name, size in sizes.items()]
    workspace = Arena(device, "newton_schulz", fields)
    for batch in group:
        yield batch, workspace


def _parts_of(x: Tensor, batch: list[Part]) -> Iterator[Tensor]:
    """Yield the matrices of each part in (M, R, L)."""
    first = 0
    for part in batch:
        yield x.rows(first, first + part.count)
        first += part.count


def _elements(batch: list[Part]) -> int:
    return sum(part.elements for part in batch)


def _squares(batch: list[Part]) -> int:
    return sum(part.count * part.sides[0] ** 2 for part in batch)
