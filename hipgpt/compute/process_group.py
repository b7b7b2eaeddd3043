"""ProcessGroup: messages between the processes that train one model, each of which drives one device.

Rank 0 has a TCP connection to every other rank. Device memory travels another way where a library is faster
(hipgpt/compute/communicator.py); these connections also tell at once that a process has ended.
"""

import contextlib
import json
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hipgpt.base.errors import UserError

LENGTH_BYTES = 8
END = "end"
LONGEST_CALL = 4096  # bytes
SECONDS_TO_MEET = 120.0  # for all ranks to start
SECONDS_TO_ANSWER = 600.0  # of a rank whose data others wait for


class ProcessGroup:
    """Rank `rank` of `size` ranks. A group of one has no connections.

    connections: by rank; rank 0 has one to each other rank, and each other rank has one to rank 0.
    """

    def __init__(self, rank: int = 0, size: int = 1, connections: Mapping[int, socket.socket] | None = None):
        self.rank, self.size, self._connections = rank, size, dict(connections or {})

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which writes the files and decides what all ranks do."""
        return self.rank == 0

    def send(self, rank: int, values: NDArray[Any]) -> None:
        """Send an array to rank 0, or from rank 0 to another rank."""
        self._send(rank, np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)

    def receive(self, rank: int, values: NDArray[Any]) -> None:
        """Fill a contiguous array with what that rank sends. Raises UserError if it is gone or does not answer."""
        self._receive(rank, values.reshape(-1).view(np.uint8).data)

    def bring(self, rank: int, values: NDArray[Any]) -> None:
        """Bring an array of one rank to rank 0, whose own is filled. The other ranks need not call this."""
        if self.leads and rank != 0:
            self.receive(rank, values)
        elif not self.leads and rank == self.rank:
            self.send(0, values)

    def take(self, rank: int, values: NDArray[Any]) -> None:
        """Take an array of rank 0 to one rank, whose own is filled. The other ranks need not call this."""
        if self.leads and rank != 0:
            self.send(rank, values)
        elif not self.leads and rank == self.rank:
            self.receive(0, values)

    def share(self, values: NDArray[Any]) -> None:
        """Fill the array of all other ranks with that of rank 0."""
        for rank in range(1, self.size) if self.leads else [self.rank]:
            self.take(rank, values)

    def tell(self, method: str, *numbers: Any) -> None:
        """Tell all other ranks, if this is rank 0, which method rank 0 calls, and with which numbers."""
        for rank in range(1, self.size) if self.leads else ():
            self._tell(rank, [method, *numbers])

    def close(self) -> None:
        """Tell all other ranks, if this is rank 0, that they may end. Some may have ended already."""
        for rank in range(1, self.size) if self.leads else ():
            with contextlib.suppress(UserError):
                self._tell(rank, [END])

    def told(self) -> list[Any]:
        """Return the next method that rank 0 calls and its numbers, or [END].

        There is no limit of time, because rank 0 may sample or save.
        """
        self._connections[0].settimeout(None)
        length = bytearray(LENGTH_BYTES)
        self._receive(0, memoryview(length))
        self._connections[0].settimeout(SECONDS_TO_ANSWER)
        size = int.from_bytes(length, "little")
        if size > LONGEST_CALL:
            raise UserError(f"rank {self.rank}: rank 0 said something else than a call; all ranks need the same device")
        text = bytearray(size)
        self._receive(0, memoryview(text))
        call: list[Any] = json.loads(text)
        return call

    def _tell(self, rank: int, call: Sequence[Any]) -> None:
        text = json.dumps(call).encode()
        self._send(rank, len(text).to_bytes(LENGTH_BYTES, "little") + text)

    def _send(self, rank: int, data: bytes | memoryview) -> None:
        try:
            self._connections[rank].sendall(data)
        except TimeoutError as error:
            raise self._silent(rank) from error
        except OSError as error:
            raise self._gone(rank) from error

    def _receive(self, rank: int, data: memoryview) -> None:
        while data:
            try:
                count = self._connections[rank].recv_into(data)
            except TimeoutError as error:
                raise self._silent(rank) from error
            except OSError as error:
                raise self._gone(rank) from error
            if not count:
                raise self._gone(rank)
            data = data[count:]

    def _gone(self, rank: int) -> UserError:
        return UserError(f"rank {self.rank}: rank {rank} of {self.size} has ended; start the same command again")

    def _silent(self, rank: int) -> UserError:
        seconds = self._connections[rank].gettimeout()
        return UserError(
            f"rank {self.rank}: rank {rank} of {self.size} did not answer for {seconds:.0f} s; see what its process "
            "does, end it, and start the same command again"
        )


def meet(rank: int, size: int, host: str, port: int, seconds_to_answer: float = SECONDS_TO_ANSWER) -> ProcessGroup:
    """Return the group of all ranks, once they have met at rank 0's address.

    seconds_to_answer: how long a rank waits for the data of another one. Raises UserError if a rank does not come.
    """
    deadline = time.monotonic() + SECONDS_TO_MEET
    if size == 1:
        return ProcessGroup()
    connections = _welcome(size, host, port, deadline) if rank == 0 else {0: _join(rank, host, port, deadline)}
    for connection in connections.values():
        connection.settimeout(seconds_to_answer)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return ProcessGroup(rank, size, connections)


def _welcome(size: int, host: str, port: int, deadline: float) -> dict[int, socket.socket]:
    """Return rank 0's connections: each rank sends its number first."""
    connections: dict[int, socket.socket] = {}
    with _server_at(host, port) as server:
        while len(connections) < size - 1:
            server.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                connection, _ = server.accept()
                connection.settimeout(max(deadline - time.monotonic(), 0.001))
                rank = int.from_bytes(connection.recv(LENGTH_BYTES, socket.MSG_WAITALL), "little")
            except OSError as error:
                absent = sorted(set(range(1, size)) - connections.keys())
                raise UserError(f"rank 0: {host}:{port}: ranks {absent} of {size} did not come: {error}") from error
            if not 0 < rank < size or rank in connections:
                raise UserError(f"rank 0: {host}:{port}: got rank {rank}, expected each of 1 to {size - 1} once")
            connections[rank] = connection
    return connections


def _server_at(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise UserError(
            f"rank 0: {host}:{port}: {error}; choose another MASTER_PORT, or start the job again"
        ) from error


def _join(rank: int, host: str, port: int, deadline: float) -> socket.socket:
    while True:
        try:
            connection = socket.create_connection((host, port), timeout=max(deadline - time.monotonic(), 0.001))
            connection.sendall(rank.to_bytes(LENGTH_BYTES, "little"))
            return connection
        except OSError as error:
            if time.monotonic() > deadline:
                raise UserError(f"rank {rank}: rank 0 is not at {host}:{port}: {error}") from error
            time.sleep(0.05)
