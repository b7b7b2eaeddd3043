"""Tensors, which are typed and shaped views of device memory, and arenas, which allocate a table of them at once."""

import dataclasses
import enum
import math
import operator
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import ml_dtypes
import numpy as np

ALIGNMENT_ELEMENTS = 128


class DType(enum.Enum):
    """The element types of kernels: name in the catalogue, bytes, unit roundoff (0 for integers)."""

    F32 = ("f32", 4, 2.0**-24)
    BF16 = ("bf16", 2, 2.0**-8)
    I32 = ("i32", 4, 0.0)

    def __init__(self, label: str, size_bytes: int, unit_roundoff: float):
        self.label = label
        self.size_bytes = size_bytes
        self.unit_roundoff = unit_roundoff
        self.numpy = np.dtype({"f32": np.float32, "bf16": ml_dtypes.bfloat16, "i32": np.int32}[label])


@dataclass(frozen=True)
class Field:
    """A row of a tensor table.

    decay: whether AdamW applies weight decay to it; mean, std: of its normally distributed initial values.
    matrices: the rows of each matrix that the field holds, one after the other, if Muon may update it; otherwise empty.
    """

    name: str
    shape: tuple[int, ...]
    dtype: DType = DType.F32
    decay: bool = False
    std: float = 0.0
    mean: float = 0.0
    matrices: tuple[int, ...] = ()

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Tensor:
    """A row-major view of device memory.

    address: in bytes; owner: object that keeps the allocation alive; arena: name of the arena that it belongs to.
    """

    name: str
    shape: tuple[int, ...]
    dtype: DType
    address: int
    owner: Any
    arena: str = ""

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        return self.elements * self.dtype.size_bytes

    @property
    def flat(self) -> "Tensor":
        """A view of the same elements with one dimension."""
        return self.view(self.elements)

    def overlaps(self, other: "Tensor") -> bool:
        """Return whether the two have bytes in common."""
        return self.address < other.address + other.size_bytes and other.address < self.address + self.size_bytes

    def view(self, *shape: int) -> "Tensor":
        """Return a view of the same elements with another shape. Raises ValueError if their number differs."""
        if math.prod(shape) != self.elements:
            raise ValueError(f"{self.name}: cannot view shape {self.shape} as {shape}")
        return dataclasses.replace(self, shape=shape)

    def rows(self, start: int, stop: int) -> "Tensor":
        """Return a view of rows start <= i < stop of the first dimension. Raises ValueError for other rows."""
        start, stop = operator.index(start), operator.index(stop)
        if not self.shape or not 0 <= start < stop <= self.shape[0]:
            raise ValueError(f"{self.name}: rows {start}:{stop} of {self.shape[0] if self.shape else 'no rows'}")
        address = self.address + start * (self.size_bytes // self.shape[0])
        shape = (stop - start, *self.shape[1:])
        return dataclasses.replace(self, name=f"{self.name}[{start}:{stop}]", shape=shape, address=address)


class Allocator(Protocol):
    """The part of a device that an arena uses."""

    def allocate(self, size_bytes: int) -> tuple[int, Any]:
        """Return (address, owner) of zeroed memory, aligned to at least 64 bytes."""


class Arena:
    """One allocation for a table of fields, in the table's order.

    Each field takes a multiple of ALIGNMENT_ELEMENTS elements, and the padding stays zero. `offsets` are in bytes.
    Arenas of the same fields have the same layout: element i of `flat` belongs to the same parameter in the weights,
    the gradients, both moments, and a copy of the weights in another dtype.
    """

    def __init__(self, device: Allocator, name: str, fields: Iterable[Field]):
        self.name = name
        self.fields = tuple(fields)
        self._by_name = {field.name: field for field in self.fields}
        if len(self._by_name) < len(self.fields):
            raise ValueError(f"{name}: a field is listed twice: {[field.name for field in self.fields]}")
        self.offsets, end = {}, 0
        for field in self.fields:
            self.offsets[field.name] = end
            end += self.padded_elements(field.name) * field.dtype.size_bytes
        self.size_bytes = end
        self._address, self._owner = device.allocate(end)

    @property
    def flat(self) -> Tensor:
        """All elements, padding included, as one tensor. Raises ValueError if the fields have several dtypes."""
        dtypes = {field.dtype for field in self.fields}
        if len(dtypes) > 1:
            raise ValueError(f"{self.name}: has fields of {sorted(dtype.label for dtype in dtypes)}, so no flat tensor")
        (dtype,) = dtypes
        elements = self.size_bytes // dtype.size_bytes
        return Tensor(self.name, (elements,), dtype, self._address, self._owner, self.name)

    def padded_elements(self, name: str) -> int:
        """Return how many elements a field takes, padding included."""
        return -(-self._by_name[name].elements // ALIGNMENT_ELEMENTS) * ALIGNMENT_ELEMENTS

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def __getitem__(self, name: str) -> Tensor:
        field, address = self._by_name[name], self._address + self.offsets[name]
        return Tensor(f"{self.name}.{name}", field.shape, field.dtype, address, self._owner, self.name)
