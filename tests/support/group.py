"""Process groups for tests: threads that are ranks, and processes that train as ranks."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hipgpt.base.paths import ROOT
from hipgpt.compute.process_group import ProcessGroup, meet

LOOPBACK = "127.0.0.1"


def free_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as server:
        return server.getsockname()[1]


def in_threads(size: int, act: Callable[[ProcessGroup], Any], seconds_to_answer: float = 30) -> list[Any]:
    """Return what act(group) returns, or the exception that it raises, for each rank; each is a thread."""
    port, found = free_port(), [None] * size

    def run(rank: int) -> None:
        try:
            found[rank] = act(meet(rank, size, LOOPBACK, port, seconds_to_answer))
        except Exception as error:
            found[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def rank_environment() -> dict[str, str]:
    """Return the environment of a process that is a rank, which finds the modules of the tests."""
    return os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}


def train_in_processes(
    size: int, folder: Path, optimizer: str, precision: str, reduce_precision: str = "float32", device: str = "cpu"
) -> dict[str, np.ndarray]:
    """Return the losses and the final weights of the training of support/rank.py on `size` ranks."""
    output, port = folder / f"{size}.npz", str(free_port())
    program = [sys.executable, str(Path(__file__).with_name("rank.py"))]
    settings = device, optimizer, precision, reduce_precision
    ranks = [
        subprocess.Popen([*program, str(rank), str(size), port, str(output), *settings], env=rank_environment())
        for rank in range(size)
    ]
    try:
        assert [rank.wait(120) for rank in ranks] == [0] * size
    finally:
        for rank in ranks:
            rank.kill()
    return dict(np.load(output))
