"""Which source serves an op on an architecture and dtype: a table, first match wins."""

from dataclasses import dataclass
from pathlib import Path

from hipgpt.backends.build import KERNELS
from hipgpt.op import Op
from hipgpt.tensor import DType

ANY = "*"


@dataclass(frozen=True)
class Variant:
    """A row: op (or ANY), architecture, activation dtype; source in kernels/, `{family}` standing for the op's."""

    op: str
    arch: str
    dtype: str
    source: str

    def serves(self, op: Op, arch: str, act: DType) -> bool:
        wanted = ((self.op, op.name), (self.arch, arch), (self.dtype, act.label))
        return all(pattern in (ANY, value) for pattern, value in wanted)


VARIANTS = (
    Variant(op=ANY, arch="cpu", dtype="f32", source="cpu/{family}.cpp"),
    Variant(op=ANY, arch=ANY, dtype="f32", source="gpu/{family}.hip"),
)


def find_source(op: Op, arch: str, act: DType) -> Path:
    """Return the source file that serves an op. Raises LookupError if no row does."""
    for variant in VARIANTS:
        if variant.serves(op, arch, act):
            return KERNELS / variant.source.format(family=op.family)
    raise LookupError(f"{op.name}: no variant for architecture {arch} and dtype {act.label}")
