"""AdamW over arenas, with gradients clipped by their global norm."""

import itertools

from hipgpt.base.errors import UserError
from hipgpt.compute.catalogue import ADAMW, GRADIENT_NORM, SUM_OF_SQUARES
from hipgpt.compute.communicator import BROADCAST
from hipgpt.compute.device import Device
from hipgpt.compute.plan import Plan
from hipgpt.compute.tensor import Arena, DType, Field, Tensor
from hipgpt.config.settings import TrainingConfig
from hipgpt.training.ownership import Ownership, Piece

NORM_PARTS = 256


class AdamW:
    """The two moments of the weights that this rank owns, and the ops of one update.

    whole_matrices: of Ownership.
    """

    whole_matrices = False

    def __init__(self, device: Device, weights: Arena, training: TrainingConfig):
        self.weights, self.training = weights, training
        self.ownership = Ownership(weights, device.communicator.group, self.whole_matrices)
        if not all(any(self.moved_by_adamw(piece.field) for piece in pieces) for pieces in self.ownership.pieces):
            count = self.ownership.group.size
            raise UserError(f"devices: got {count}, expected fewer: the model is too small to give each its part")
        self.first_moment = Arena(device, "first_moment", [piece.part for piece in self.ownership.own])
        self.second_moment = Arena(device, "second_moment", [piece.part for piece in self._moved_by_adamw()])
        counts = [len(self.ownership.ranges(pieces)) for pieces in self.ownership.pieces]
        shape = sum(counts), NORM_PARTS
        self._scratch = Arena(device, "optimizer", [Field("norm", (1,)), Field("partials", shape)])
        self.norm = self._scratch["norm"]
        self._rows_by_rank = list(itertools.pairwise(itertools.accumulate(counts, initial=0)))  # of partials

    @property
    def given(self) -> list[Tensor]:
        """The tensors that must hold values before an update."""
        return [self.weights.flat, self.first_moment.flat, self.second_moment.flat]

    def update(
        self, plan: Plan, gradients: Arena, schedule: Tensor, counters: Tensor, copy: Arena | None = None
    ) -> None:
        """Record the global norm of the gradients, then the update of the weights. The gradients are zero afterwards.

        schedule (K, 3): rows of the function `schedule`; counters: select the row. copy: the copy of the weights that
        the passes read, which is written too. Of several ranks, each updates the weights that it owns, then all get
        the others' `copy`, or their weights if there is none. Gradients of weights that it does not own must be zero.
        """
        self._record_norm(plan, gradients)
        self._record_updates(plan, gradients, schedule, counters, copy)
        self.ownership.broadcast(plan, copy or self.weights)

    def _record_norm(self, plan: Plan, gradients: Arena) -> None:
        partials, rank = self._scratch["partials"], self.ownership.group.rank
        own_rows = range(*self._rows_by_rank[rank])
        for row, elements in zip(own_rows, self.ownership.ranges(self.ownership.own), strict=True):
            plan(SUM_OF_SQUARES, partials.rows(row, row + 1).flat, gradients.flat.rows(*elements))
        if self.ownership.group.size > 1:
            for root, rows in enumerate(self._rows_by_rank):
                plan(BROADCAST, partials.rows(*rows).flat, root=root)
        plan(GRADIENT_NORM, self.norm, partials.flat)

    def moved_by_adamw(self, field: Field) -> bool:
        """Return whether AdamW updates a field of the weights."""
        return not (self.whole_matrices and field.matrices)

    def _moved_by_adamw(self) -> list[Piece]:
        """Return the pieces that AdamW updates, in the order of the weights."""
        return [piece for piece in self.ownership.own if self.moved_by_adamw(piece.field)]

    def _record_updates(
        self, plan: Plan, gradients: Arena, schedule: Tensor, counters: Tensor, copy: Arena | None
    ) -> None:
        self._record_adamw(plan, gradients, schedule, counters, copy)

    def _record_adamw(
        self, plan: Plan, gradients: Arena, schedule: Tensor, counters: Tensor, copy: Arena | None
    ) -> None:
        """Record ADAMW for each range of the pieces that it updates."""
        training, moved = self.training, self._moved_by_adamw()
        settings = {"beta1": training.beta1, "beta2": training.beta2, "epsilon": training.epsilon}
        settings |= {"weight_decay": training.weight_decay, "clip_norm": training.clip_norm}
        for first, last in self.ownership.ranges(moved):
            begin = next(piece for piece in moved if self.ownership.range_of(piece)[0] == first)
            arenas = self.first_moment, self.second_moment
            moments = (_rows_from(arena, begin.field.name, last - first) for arena in arenas)
            tensors = self.weights.flat.rows(first, last), *moments, gradients.flat.rows(first, last)
            copied = copy.flat.rows(first, last) if copy else None
            decayed = min(max(self._decayed_elements - first, 0), last - first)
            plan(ADAMW, *tensors, copied, self.norm, schedule, counters, **settings, decayed=decayed)

    @property
    def _decayed_elements(self) -> int:
        undecayed = next(field for field in self.weights.fields if not field.decay)
        return self.weights.offsets[undecayed.name] // DType.F32.size_bytes


def _rows_from(arena: Arena, name: str, elements: int) -> Tensor:
    """Return that many elements of a flat arena, from a field on."""
    first = arena.offsets[name] // DType.F32.size_bytes
    return arena.flat.rows(first, first + elements)
