"""Stop a run by a signal. The step is finished and its state is saved first."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hipgpt.base.errors import UserError
from hipgpt.base.log import LOG

SECONDS_OF_ONE_REQUEST = 1.0


class Interrupted(UserError):
    """A signal stopped the run after a finished step. Its state is saved."""


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether SIGINT or SIGTERM was received. A later signal acts as by default.

    Signals within SECONDS_OF_ONE_REQUEST are one request, because Slurm sends its signal to every process of a job, and
    the process that started this one hands it on.
    """
    received: list[float] = []

    def handle(number: int, frame: object) -> None:
        if not received:
            LOG.info("%s: finishing this step, then saving", signal.Signals(number).name)
            received.append(time.monotonic())
        elif time.monotonic() > received[0] + SECONDS_OF_ONE_REQUEST:
            signal.signal(number, previous[number])
            signal.raise_signal(number)

    previous = {int(number): signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
