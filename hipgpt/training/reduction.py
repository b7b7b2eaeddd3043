"""The sums of gradients over ranks, made in buckets while the backward pass continues.

Li et al. 2020, "PyTorch distributed: experiences on accelerating data parallel training", arXiv:2006.15704.
"""

import dataclasses
from collections.abc import Iterator

from hipgpt.compute.catalogue import ROUND_WEIGHTS, WIDEN_GRADIENTS
from hipgpt.compute.communicator import REDUCE, REDUCE_ROUNDED
from hipgpt.compute.device import Device
from hipgpt.compute.plan import Plan
from hipgpt.compute.tensor import Arena, DType
from hipgpt.training.ownership import Ownership, Piece, Range

BUCKET_ELEMENTS = 1 << 24  # fewer and larger ones let GEMMs beside them run longer on all multiprocessors


class Reduction:
    """Gives each rank the sums of the gradients of the weights that it owns.

    dtype: in which gradients travel and are added: f32, or bf16, which takes half the time between the devices, and a
    copy of the gradients in memory.
    """

    def __init__(self, device: Device, gradients: Arena, ownership: Ownership, dtype: DType):
        self.gradients, self.ownership = gradients, ownership
        self._rounded = None
        if ownership.group.size > 1 and dtype is not DType.F32:
            fields = [dataclasses.replace(field, dtype=dtype) for field in gradients.fields]
            self._rounded = Arena(device, "rounded_gradients", fields)

    def record(self, plan: Plan) -> None:
        """Record, after the backward pass and if there are several ranks, the sums of all gradients.

        A bucket is reduced right after the last launch that adds to it. The gradients of weights that other ranks own
        become zero.
        """
        if self.ownership.group.size == 1:
            return
        for root, elements in self._buckets():
            gradients = self.gradients.flat.rows(*elements)
            if self._rounded is None:
                plan.early(REDUCE, gradients, root=root)
            else:
                rounded = self._rounded.flat.rows(*elements)
                plan.early(ROUND_WEIGHTS, rounded, gradients)
                plan.early(REDUCE_ROUNDED, rounded, root=root)
        if self._rounded is not None:
            plan(WIDEN_GRADIENTS, self.gradients.flat, self._rounded.flat)

    def _buckets(self) -> Iterator[tuple[int, Range]]:
        """Yield the elements of each bucket with the rank that owns them.

        Weights that do not decay have buckets of their own, because those of the first block are complete last.
        """
        for rank, pieces in enumerate(self.ownership.pieces):
            bucket: list[Piece] = []
            for piece in pieces:
                full = sum(each.last - each.first for each in bucket) >= BUCKET_ELEMENTS
                if bucket and (full or bucket[-1].field.decay != piece.field.decay):
                    yield from ((rank, elements) for elements in self.ownership.ranges(bucket))
                    bucket = []
                bucket.append(piece)
            yield from ((rank, elements) for elements in self.ownership.ranges(bucket))
