"""Collectives: launches of a plan that move tensors between the ranks of a process group.

They have contracts like the ops of the catalogue, but no kernels: the communicator of a device runs them in the place
where the plan has them. MPI Forum 2023, "MPI: a message-passing interface standard", chapter 6.
"""

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hipgpt.compute.contract import op
from hipgpt.compute.launch import Launch
from hipgpt.compute.process_group import ProcessGroup
from hipgpt.compute.tensor import Tensor

# x of the rank `root` becomes the sum over all ranks, that of the other ranks zero.
REDUCE = op("reduce", "collective", """
    inout  x  f32 (N)
    """, scalars="root i32")  # fmt: skip

REDUCE_ROUNDED = op("reduce_rounded", "collective", """
    inout  x  act (N)
    """, scalars="root i32")  # fmt: skip

# x of all ranks becomes that of the rank `root`. The others need not have written theirs before.
BROADCAST = op("broadcast", "collective", """
    out    x  f32 (N)
    """, scalars="root i32")  # fmt: skip

BROADCAST_ROUNDED = op("broadcast_rounded", "collective", """
    out    x  act (N)
    """, scalars="root i32")  # fmt: skip

REDUCTIONS = (REDUCE, REDUCE_ROUNDED)
COLLECTIVES = (*REDUCTIONS, BROADCAST, BROADCAST_ROUNDED)


class Communicator(Protocol):
    """Runs collectives between the devices of a process group."""

    group: ProcessGroup

    def bind(self, launches: Sequence[Launch]) -> Callable[[], None]:
        """Return a function that starts these collectives after all earlier launches.

        Every rank must call its own, in the same order.
        """
        ...

    def join(self) -> None:
        """Make later launches wait for the collectives that were started."""
        ...

    def wait(self, finished: Callable[[], bool]) -> None:
        """Wait until a device has finished what holds collectives; finished: asks it."""
        ...


class HostCommunicator:
    """Collectives on tensors in host memory, through rank 0. Sums are made in f32, in the order of the ranks."""

    def __init__(self, group: ProcessGroup):
        self.group = group

    def bind(self, launches: Sequence[Launch]) -> Callable[[], None]:
        steps = [(launch.op, _in_place(launch.tensor("x")), int(launch.scalars["root"])) for launch in launches]

        def run() -> None:
            for collective, x, root in steps:
                if collective in REDUCTIONS:
                    self._reduce(x, root)
                else:
                    self._broadcast(x, root)

        return run

    def join(self) -> None:
        """Do nothing: these collectives have ended when they return."""

    def wait(self, finished: Callable[[], bool]) -> None:
        """Return at once, for the same reason."""

    def _reduce(self, x: NDArray[Any], root: int) -> None:
        if not self.group.leads:
            self.group.send(0, x)
            if self.group.rank == root:
                self.group.receive(0, x)
            else:
                x[:] = 0
            return
        other, total = np.empty_like(x), x.astype(np.float32)
        for rank in range(1, self.group.size):
            self.group.receive(rank, other)
            total += other
        x[:] = total
        if root != 0:
            self.group.send(root, x)
            x[:] = 0

    def _broadcast(self, x: NDArray[Any], root: int) -> None:
        if not self.group.leads:
            if self.group.rank == root:
                self.group.send(0, x)
            else:
                self.group.receive(0, x)
            return
        if root != 0:
            self.group.receive(root, x)
        for rank in range(1, self.group.size):
            if rank != root:
                self.group.send(rank, x)


def _in_place(tensor: Tensor) -> NDArray[Any]:
    """Return a view of a tensor in host memory."""
    memory = (ctypes.c_uint8 * tensor.size_bytes).from_address(tensor.address)
    return np.ctypeslib.as_array(memory).view(tensor.dtype.numpy)
