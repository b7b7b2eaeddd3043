"""The compilations that the ops of the catalogue need on an architecture."""

import functools
from pathlib import Path
from typing import NamedTuple

from hipgpt.compute.backends.variant import Variant
from hipgpt.compute.backends.variants import variants_of
from hipgpt.compute.catalogue import ON_GPUS
from hipgpt.compute.contract import Op
from hipgpt.compute.tensor import DType


class Build(NamedTuple):
    """A compilation that some op of the catalogue needs: a variant's source for a dtype of activations."""

    variant: Variant
    op: Op
    act: DType

    def __str__(self) -> str:
        sizes = [str(value) for name, value in self.variant.macros.items() if name in ("BLOCK_TILE", "HEAD_CHANNELS")]
        return "-".join([Path(self.variant.source_of(self.op)).name, self.act.label, *sizes])


@functools.cache
def builds(arch: str) -> dict[str, list[Build]]:
    """Return the compilations that an architecture needs, by their text: for each op that one serves, itself."""
    acts = {True: (DType.F32, DType.BF16), False: (DType.F32,)}
    every = [
        (op, act) for op in ON_GPUS.values() for act in acts[any(argument.dtype == "act" for argument in op.arguments)]
    ]
    found: dict[str, list[Build]] = {}
    for op, act in every:
        for variant in variants_of(op, arch, act):
            build = Build(variant, op, act)
            found.setdefault(str(build), []).append(build)
    return found
