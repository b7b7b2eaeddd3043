"""The contract of a kernel: name, arguments with access, dtype and symbolic shape, scalars, number of operations.

One `Op` determines four things: the order of a kernel's C arguments (tensors, then dimensions as int64, then scalars),
the checks that a Plan makes, the generated tests, and the bytes and operations that estimates and benchmarks count.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hipgpt.compute.tensor import DType, Tensor

ACCESS = ("out", "in", "inout", "add", "scratch")
SCALAR_TYPES = ("f32", "i32")


class ContractError(ValueError):
    """A call that violates an op's contract. The message names the op, the argument, the value and what is expected."""


@dataclass(frozen=True)
class Argument:
    """A tensor argument of an op.

    access: `in` is read; `out` is written; `inout` is read and written; `add` is added to; `scratch` is a workspace,
    undefined before and after the call. optional: may be None. dtype: a label of DType, or `act` for the plan's
    activation dtype. shape: names of dimensions, or numbers.
    """

    access: str
    optional: bool
    name: str
    dtype: str
    shape: tuple[str, ...]

    @property
    def reads(self) -> bool:
        """Whether the op uses the values that the tensor has before the call."""
        return self.access not in ("out", "scratch")

    @property
    def writes(self) -> bool:
        """Whether the op changes the tensor, scratch included."""
        return self.access != "in"

    @property
    def leaves_values(self) -> bool:
        """Whether the tensor holds defined values because of the call."""
        return self.access not in ("in", "scratch")


@dataclass(frozen=True)
class Op:
    """A contract; the function `op` makes one from a table.

    family: stem of the kernel's source file. scalars: (name, type) pairs. operations: function of the dimensions that
    returns the number of floating-point operations of a call.
    """

    name: str
    family: str
    arguments: tuple[Argument, ...]
    scalars: tuple[tuple[str, str], ...]
    operations: Callable[..., int]

    @property
    def dimensions(self) -> tuple[str, ...]:
        """The symbolic dimensions by first appearance: the order of the kernel's int64 arguments."""
        names = (size for argument in self.arguments for size in argument.shape if not size.isdigit())
        return tuple(dict.fromkeys(names))

    def bind(self, tensors: Sequence[Tensor | None], scalars: Mapping[str, float], act: DType) -> dict[str, int]:
        """Check the tensors and scalars of a call, and return the value of each dimension by name.

        A dimension of arguments that are left out is 0.

        tensors: in the contract's order; act: the dtype that `act` stands for. Raises ContractError if the number of
        tensors, a dtype, a rank, a dimension or the set of scalars is wrong, or if an output overlaps another argument.
        """
        if len(tensors) != len(self.arguments):
            names = ", ".join(argument.name for argument in self.arguments)
            raise ContractError(f"{self.name}: got {len(tensors)} tensors, expected {len(self.arguments)} ({names})")
        if set(scalars) != {name for name, _ in self.scalars}:
            expected = [name for name, _ in self.scalars]
            raise ContractError(f"{self.name}: got scalars {sorted(scalars)}, expected {expected}")
        sizes: dict[str, int] = {}
        for argument, tensor in zip(self.arguments, tensors, strict=True):
            self._bind_argument(argument, tensor, sizes, act)
        self._refuse_overlap(tensors)
        return {name: sizes.get(name, 0) for name in self.dimensions}

    def _bind_argument(self, argument: Argument, tensor: Tensor | None, sizes: dict[str, int], act: DType) -> None:
        where = f"{self.name}: {argument.name}"
        if tensor is None:
            if not argument.optional:
                raise ContractError(f"{where} is None, but it is not optional")
            return
        label = act.label if argument.dtype == "act" else argument.dtype
        if tensor.dtype.label != label:
            raise ContractError(f"{where} ({tensor.name}) has dtype {tensor.dtype.label}, expected {label}")
        pairs = list(zip(argument.shape, tensor.shape, strict=False))
        fits = len(tensor.shape) == len(argument.shape)
        if not fits or any(name.isdigit() and int(name) != size for name, size in pairs):
            shape = ", ".join(argument.shape)
            raise ContractError(f"{where} ({tensor.name}) has shape {tensor.shape}, expected ({shape})")
        for name, size in pairs:
            expected = sizes.setdefault(name, size)
            if size != expected:
                raise ContractError(f"{where} has {name}={size}, but an earlier argument has {name}={expected}")

    def _refuse_overlap(self, tensors: Sequence[Tensor | None]) -> None:
        given = [(a, t) for a, t in zip(self.arguments, tensors, strict=True) if t is not None]
        for index, (argument, tensor) in enumerate(given):
            for other, second in given[index + 1 :]:
                apart = (
                    tensor.address + tensor.size_bytes <= second.address
                    or second.address + second.size_bytes <= tensor.address
                )
                if (argument.writes or other.writes) and not apart:
                    what = f"{argument.name} ({tensor.name}) overlaps {other.name} ({second.name})"
                    raise ContractError(f"{self.name}: {what}")

    def bytes_moved(self, tensors: Sequence[Tensor | None]) -> int:
        """Return the minimum memory traffic of a call in bytes: each input is read once, each output written once.

        Scratch memory counts twice, because it is written, then read. So do `inout` and `add` arguments.
        """
        pairs = [(a, t) for a, t in zip(self.arguments, tensors, strict=True) if t is not None]
        return sum(t.size_bytes * (1 if a.access in ("in", "out") else 2) for a, t in pairs)


def op(name: str, family: str, table: str, scalars: str = "", operations: Callable[..., int] = lambda **_: 0) -> Op:
    """Return the contract that `table` describes, one argument a line: `access[?] name dtype (dimensions)`.

    `?` marks an optional argument. family: stem of the source file in kernels/<backend>; scalars: "name type, name
    type". Raises ValueError if a line or a scalar has another form.
    """
    arguments = []
    for line in table.strip().splitlines():
        access, argument, dtype, shape = line.split(maxsplit=3)
        optional, access = access.endswith("?"), access.rstrip("?")
        if access not in ACCESS or not (shape.startswith("(") and shape.endswith(")")):
            raise ValueError(f"{name}: cannot read the line {line.strip()!r}")
        sizes = tuple(size.strip() for size in shape[1:-1].split(","))
        arguments.append(Argument(access, optional, argument, dtype, sizes))
    pairs = tuple((pair.split()[0], pair.split()[1]) for pair in scalars.split(",") if pair)
    if any(kind not in SCALAR_TYPES for _, kind in pairs):
        raise ValueError(f"{name}: scalar types are {SCALAR_TYPES}, got {scalars!r}")
    return Op(name, family, tuple(arguments), pairs, operations)
