"""A checked call of an op, and its arguments in the form in which a kernel takes them."""

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hipgpt.compute.contract import Op
from hipgpt.compute.tensor import DType, Tensor

CValue = ctypes.c_void_p | ctypes.c_int64 | ctypes.c_int32 | ctypes.c_float
# Any, because c_float takes numbers and c_int32 integers only
SCALARS: Mapping[str, Callable[[Any], CValue]] = {"f32": ctypes.c_float, "i32": ctypes.c_int32}


@dataclass(frozen=True)
class Launch:
    """A checked call of an op. tensors: in the contract's order; sizes: by the name of the dimension."""

    op: Op
    tensors: tuple[Tensor | None, ...]
    sizes: Mapping[str, int]
    scalars: Mapping[str, float]

    @property
    def act(self) -> DType:
        """The dtype that `act` stands for in this call; f32 if no argument has it."""
        pairs = zip(self.op.arguments, self.tensors, strict=True)
        return next((tensor.dtype for argument, tensor in pairs if tensor and argument.dtype == "act"), DType.F32)

    def given(self, name: str) -> Tensor | None:
        """Return an argument by its name in the contract, None if it is left out."""
        return next(t for a, t in zip(self.op.arguments, self.tensors, strict=True) if a.name == name)

    def tensor(self, name: str) -> Tensor:
        """Return an argument that is present by its name in the contract."""
        found = self.given(name)
        assert found is not None
        return found

    def shares_memory_with(self, other: "Launch") -> bool:
        """Return whether a tensor of this launch and one of the other have bytes in common."""
        mine, others = (list(filter(None, launch.tensors)) for launch in (self, other))
        return any(tensor.overlaps(another) for tensor in mine for another in others)

    @property
    def operations(self) -> int:
        return self.op.operations(**self.sizes)

    @property
    def bytes_moved(self) -> int:
        return self.op.bytes_moved(self.tensors)

    def c_arguments(self) -> list[CValue]:
        """Return the kernel's arguments as ctypes values: tensors, then dimensions as int64, then scalars."""
        tensors = [ctypes.c_void_p(tensor.address if tensor else None) for tensor in self.tensors]
        sizes = [ctypes.c_int64(self.sizes[name]) for name in self.op.dimensions]
        return [*tensors, *sizes, *(SCALARS[kind](self.scalars[name]) for name, kind in self.op.scalars)]
