"""A row of the table of variants: which calls it is for, and what serves them."""

import re
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any

from hipgpt.compute.backends.launch_shapes import Shape, ShapeOf, Sizes
from hipgpt.compute.backends.persistent_gemm import Boxes, PersistentGemm
from hipgpt.compute.backends.sorted_embedding import SortedEmbedding
from hipgpt.compute.backends.split_k import SplitK
from hipgpt.compute.contract import Op
from hipgpt.compute.tensor import DType


def always(op: Op, sizes: Sizes) -> bool:
    """Suit every size."""
    return True


def compiled_for(
    macros: Callable[[Sizes], Mapping[str, int]] | None = None, shared_bytes: Callable[[Sizes], int] | None = None
) -> Callable[["Variant", Sizes], "Variant"]:
    """Return `for_sizes` of a row whose macros or shared memory follow from a call's sizes."""

    def for_sizes(row: Variant, sizes: Sizes) -> Variant:
        return replace(
            row,
            macros=macros(sizes) if macros else row.macros,
            shared_bytes=shared_bytes(sizes) if shared_bytes else row.shared_bytes,
        )

    return for_sizes


def no_boxes(op: Op) -> tuple[Boxes, ...]:
    """Read all arguments by address."""
    return ()


@dataclass(frozen=True)
class Variant:
    """A row: patterns of op, architecture and activation dtype; what serves them.

    source: a file in kernels/, `{family}` standing for the op's. macros: what it is compiled with, in addition to the
    dtype's; headers of kernels/*/select choose files by them. shapes: how its kernels are launched on a
    GPU, by op. suits: which sizes the row is for. shared_bytes: dynamic shared memory.
    together: whether the blocks of a launch wait for each other, so that all must be resident. schedule: in place of
    shapes if a call is several launches, or its kernels end with parameters of the schedule. boxes: the arguments that
    its kernels move by the copy engine; their tensor maps are the last parameters. for_sizes: the row with what is
    compiled for a call's sizes.
    """

    op: str
    arch: str
    dtype: str
    source: str
    _: KW_ONLY
    macros: Mapping[str, int] = field(default_factory=dict)
    shapes: Mapping[str, ShapeOf] = field(default_factory=dict)
    suits: Callable[[Op, Sizes], bool] = always
    shared_bytes: int = 0
    together: bool = False
    for_sizes: Callable[["Variant", Sizes], "Variant"] | None = None
    schedule: SplitK | PersistentGemm | SortedEmbedding | None = None
    boxes: Callable[[Op], tuple[Boxes, ...]] = no_boxes

    def matches(self, op: Op, arch: str, act: DType) -> bool:
        """Return whether all patterns match."""
        patterns = ((self.op, op.name), (self.arch, arch), (self.dtype, act.label))
        return all(re.fullmatch(pattern, value) for pattern, value in patterns)

    def source_of(self, op: Op) -> str:
        """Return the source that has the op's kernel, a path relative to kernels/."""
        return self.source.format(family=op.family)

    def workspace_bytes(self, op: Op, sizes: Sizes) -> int:
        """Return how much device memory a call's launches need in addition to its arguments."""
        return self.schedule.workspace_bytes(op, sizes) if self.schedule else 0

    def launches(self, op: Op, sizes: Sizes, wave: int, workspace: int | None) -> list[tuple[Shape, list[Any]]]:
        """Return the kernel launches of a call in order: each one's shape, and the arguments after the contract's.

        workspace: address of workspace_bytes bytes, None if that is 0.
        """
        if self.schedule:
            return self.schedule.launches(op, sizes, wave, workspace)
        return [(self.shapes[op.name](sizes, wave), [])]
