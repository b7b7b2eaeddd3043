"""Several processes that train one model, a rank each: where a rank stands, and starting all ranks of one machine.

The variables of a rank are those of torchrun (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT). Under Slurm,
`srun` starts a task for each rank, perhaps on several machines, and its own variables say the same.
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hipgpt.base.errors import UserError
from hipgpt.training.interruption import SECONDS_OF_ONE_REQUEST

LOOPBACK = "127.0.0.1"
SECONDS_TO_END = 10.0  # of the other ranks, when one has ended
POLL_SECONDS = 0.1
SECONDS_BETWEEN_LOOKS = 1.0  # at the parent
FIRST_PORT, PORTS = 20_000, 40_000  # of jobs under Slurm


@dataclass(frozen=True)
class Place:
    """Where a rank stands among `size` ranks; by default it is alone.

    local_rank: its number on its own machine, which selects its GPU. local_size: the ranks of that machine, which share
    its cores. host, port: the address of rank 0.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    host: str = LOOPBACK
    port: int = 0


def own_place(environment: Mapping[str, str]) -> Place | None:
    """Return the place of this process, None if it trains alone. environment: of the process."""

    def number(name: str) -> int:
        return int(environment[name])

    try:
        if "RANK" in environment and int(environment.get("WORLD_SIZE", "1")) > 1:
            here = number("LOCAL_RANK"), number("LOCAL_WORLD_SIZE")
            address = environment["MASTER_ADDR"], number("MASTER_PORT")
            return Place(number("RANK"), number("WORLD_SIZE"), *here, *address)
        if int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
            per_node = re.match("[0-9]+", environment["SLURM_STEP_TASKS_PER_NODE"])  # such as 4(x2)
            here = number("SLURM_LOCALID"), int(per_node[0] if per_node else "")
            address = environment["SLURM_LAUNCH_NODE_IPADDR"], FIRST_PORT + number("SLURM_JOB_ID") % PORTS
            return Place(number("SLURM_PROCID"), number("SLURM_STEP_NUM_TASKS"), *here, *address)
    except (KeyError, ValueError) as error:
        raise UserError(f"variables of a rank: {error}; start the ranks by `devices`, torchrun or srun") from error
    return None


def run_ranks(command: Sequence[str], count: int) -> None:
    """Run a command as `count` ranks on this machine, and return when rank 0 has ended well.

    SIGTERM and SIGINT go to rank 0, which ends the others. Raises UserError that names the first rank that ended
    otherwise, after ending the others. It exits with the status of rank 0 if rank 0 has ended by itself.
    """
    address = {"MASTER_ADDR": LOOPBACK, "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(count)}
    ranks: list[subprocess.Popen[bytes]] = []
    try:
        with _signals_to_the_first_of(ranks):
            for rank in range(count):
                ranks.append(subprocess.Popen(command, env=os.environ | address | _numbers(rank, count)))
            failed = _first_failure(ranks)
            _wait(ranks, SECONDS_TO_END)
    finally:
        for process in ranks:
            process.kill()
            process.wait()
    if failed is not None:
        if ranks[0].returncode > 0:  # it has said why
            raise SystemExit(ranks[0].returncode)
        raise UserError(
            f"rank {failed} of {count} {_ending(ranks[failed].returncode)}, so the other ranks were ended; "
            "the same command continues from the last saved state"
        )


def leave_signals_to_rank_0() -> None:
    """Ignore SIGINT and SIGTERM. A terminal or Slurm sends them to all ranks; rank 0 saves the state, then ends all."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def stop_without_parent() -> None:
    """From now on, send this process SIGTERM once its parent has ended: a launcher that is killed cannot say so itself.

    For rank 0, which then saves the state and ends the others.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _numbers(rank: int, count: int) -> dict[str, str]:
    return {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(count)}


def _free_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as server:
        port: int = server.getsockname()[1]
        return port


@contextlib.contextmanager
def _signals_to_the_first_of(ranks: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Hand SIGINT and SIGTERM on to rank 0. A later one ends all ranks at once."""
    handed_on: list[float] = []

    def handle(number: int, frame: object) -> None:
        if not handed_on:
            handed_on.append(time.monotonic())
            for rank in ranks[:1]:
                rank.send_signal(number)
        elif time.monotonic() > handed_on[0] + SECONDS_OF_ONE_REQUEST:
            for rank in ranks:
                rank.kill()

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _first_failure(ranks: Sequence[subprocess.Popen[bytes]]) -> int | None:
    """Wait until rank 0 has ended well, or until a rank has ended otherwise; return the number of that one."""
    while True:
        statuses = [rank.poll() for rank in ranks]
        failed = next((number for number, status in enumerate(statuses) if status), None)
        if failed is not None or statuses[0] == 0:
            return failed
        time.sleep(POLL_SECONDS)


def _wait(ranks: Sequence[subprocess.Popen[bytes]], seconds: float) -> None:
    """Wait for ranks, which see that another one has gone, to end by themselves."""
    deadline = time.monotonic() + seconds
    for rank in ranks:
        with contextlib.suppress(subprocess.TimeoutExpired):
            rank.wait(max(deadline - time.monotonic(), 0))


def _ending(status: int) -> str:
    return f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
