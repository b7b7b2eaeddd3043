"""Typed, shaped pieces of device memory, and the arena that holds a table of them in one allocation."""

import enum
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

ALIGNMENT_ELEMENTS = 128


class DType(enum.Enum):
    """Element types that kernels know: name in the catalogue, bytes, unit roundoff (0 for integers)."""

    F32 = ("f32", 4, 2.0**-24)
    I32 = ("i32", 4, 0.0)

    def __init__(self, label: str, size_bytes: int, unit_roundoff: float):
        self.label = label
        self.size_bytes = size_bytes
        self.unit_roundoff = unit_roundoff

    @property
    def numpy(self) -> np.dtype:
        return np.dtype({"f32": np.float32, "i32": np.int32}[self.label])


@dataclass(frozen=True)
class Field:
    """A row of a tensor table.

    decay: whether AdamW decays it; std: standard deviation of its initial values around `mean`.
    """

    name: str
    shape: tuple[int, ...]
    dtype: DType = DType.F32
    decay: bool = False
    std: float = 0.0
    mean: float = 0.0

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Tensor:
    """A row-major view of device memory: `address` is in bytes, `owner` keeps the allocation alive."""

    name: str
    shape: tuple[int, ...]
    dtype: DType
    address: int
    owner: Any

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        return self.elements * self.dtype.size_bytes

    def view(self, *shape: int) -> "Tensor":
        """Return the same elements under another shape; raises ValueError if their number differs."""
        if math.prod(shape) != self.elements:
            raise ValueError(f"{self.name}: cannot view shape {self.shape} as {shape}")
        return Tensor(self.name, shape, self.dtype, self.address, self.owner)

    def rows(self, start: int, stop: int) -> "Tensor":
        """Return rows start <= i < stop of the first dimension, without a copy."""
        if not 0 <= start < stop <= self.shape[0]:
            raise ValueError(f"{self.name}: rows {start}:{stop} of {self.shape[0]}")
        row_bytes = self.size_bytes // self.shape[0]
        name = f"{self.name}[{start}:{stop}]"
        return Tensor(name, (stop - start, *self.shape[1:]), self.dtype, self.address + start * row_bytes, self.owner)


class Allocator(Protocol):
    """What an arena asks of a device."""

    def allocate(self, size_bytes: int) -> tuple[int, Any]:
        """Return (address, owner) of zeroed memory, aligned to at least 64 bytes."""


class Arena:
    """One allocation for a table of fields of one dtype, in the table's order.

    Offsets are in elements and multiples of ALIGNMENT_ELEMENTS, so arenas of one table share them: `flat` of the
    weights, of the gradients and of both moments line up element by element. Padding stays zero.
    """

    def __init__(self, device: Allocator, name: str, fields: Iterable[Field]):
        self.name = name
        self.fields = tuple(fields)
        self.offsets, end = {}, 0
        for field in self.fields:
            if field.name in self.offsets or field.dtype is not self.fields[0].dtype:
                raise ValueError(f"{name}: {field.name} is listed twice or has another dtype")
            self.offsets[field.name] = end
            end += -(-field.elements // ALIGNMENT_ELEMENTS) * ALIGNMENT_ELEMENTS
        dtype = self.fields[0].dtype
        address, owner = device.allocate(end * dtype.size_bytes)
        self.flat = Tensor(name, (end,), dtype, address, owner)

    def __getitem__(self, name: str) -> Tensor:
        field = next(field for field in self.fields if field.name == name)
        address = self.flat.address + self.offsets[name] * field.dtype.size_bytes
        return Tensor(f"{self.name}.{name}", field.shape, field.dtype, address, self.flat.owner)
