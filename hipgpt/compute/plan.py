"""Plan: a list of launches that is recorded and checked once, then replayed.

Recording binds the dimensions of each call. It refuses a call that violates the op's contract, and a call that reads
memory which nothing has written. A replay runs the bound launches and nothing else, so values that change from step to
step are stored in tensors on the device.
"""

import bisect
from collections.abc import Callable, Iterable, Mapping

from hipgpt.compute.contract import ContractError, Op
from hipgpt.compute.device import Device
from hipgpt.compute.launch import Launch
from hipgpt.compute.tensor import DType, Tensor


class WrittenMemory:
    """The byte ranges that hold values, as sorted disjoint intervals."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []

    def add(self, tensor: Tensor) -> None:
        start, stop = tensor.address, tensor.address + tensor.size_bytes
        first = bisect.bisect_left(self._stops, start)
        last = bisect.bisect_right(self._starts, stop)
        if first < last:
            start, stop = min(start, self._starts[first]), max(stop, self._stops[last - 1])
        self._starts[first:last], self._stops[first:last] = [start], [stop]

    def covers(self, tensor: Tensor) -> bool:
        index = bisect.bisect_right(self._starts, tensor.address) - 1
        return index >= 0 and tensor.address + tensor.size_bytes <= self._stops[index]


class Plan:
    """A list of launches on one device, made by calling the plan: plan(OP, *tensors, **scalars).

    given: the tensors that hold values before the plan runs (weights, tokens); a launch must write any other tensor
    before a later one reads it. act: the dtype that `act` stands for. A call raises ContractError, naming the op, the
    argument, the value and what is expected.
    """

    def __init__(self, device: Device, name: str, given: Iterable[Tensor], act: DType = DType.F32):
        self.name = name
        self.launches: list[Launch] = []
        self._device, self._act, self._written = device, act, WrittenMemory()
        self._replay: Callable[[], None] | None = None
        for tensor in given:
            self._written.add(tensor)

    def __call__(self, op: Op, *tensors: Tensor | None, **scalars: float) -> None:
        if self._replay is not None:
            raise ContractError(
                f"{op.name}: plan {self.name} is ready to run; a plan is recorded once, then only replayed"
            )
        sizes = op.bind(tensors, scalars, self._act)
        pairs = [(a, t) for a, t in zip(op.arguments, tensors, strict=True) if t is not None]
        for argument, tensor in pairs:
            if argument.reads and not self._written.covers(tensor):
                raise ContractError(f"{op.name}: {argument.name} ({tensor.name}) is read, but nothing has written it")
        for argument, tensor in pairs:
            if argument.leaves_values:
                self._written.add(tensor)
        self.launches.append(Launch(op, tensors, sizes, scalars))

    def serves(self, op: Op, sizes: Mapping[str, int]) -> bool:
        """Return whether the device has an op of fused_ops for these sizes."""
        return self._device.traits.workspace(op, sizes, self._act) > 0

    def early(self, op: Op, *tensors: Tensor | None, **scalars: float) -> None:
        """Record a launch right after the last one that uses memory of its tensors.

        A device may run a collective in parallel with the launches after it.
        """
        self(op, *tensors, **scalars)
        launch = self.launches.pop()
        earlier = (i for i in reversed(range(len(self.launches))) if self.launches[i].shares_memory_with(launch))
        self.launches.insert(next(earlier, -1) + 1, launch)

    def prepare(self) -> None:
        """Compile the kernels and bind the arguments, unless this is done. No launch can be added afterwards."""
        if self._replay is None:
            self._replay = self._device.prepare(self.launches)

    def run(self) -> None:
        """Run the launches in the recorded order, after `prepare` if it was not called yet."""
        self.prepare()
        assert self._replay is not None
        self._replay()
