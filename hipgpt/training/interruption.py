"""Stop a run by a signal. The step is finished and its state is saved first."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hipgpt.base.errors import UserError
from hipgpt.base.log import LOG


class Interrupted(UserError):
    """A signal stopped the run after a finished step. Its state is saved."""


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether SIGINT or SIGTERM was received. A second signal acts as by default."""
    received: list[int] = []

    def handle(number: int, frame: object) -> None:
        received.append(number)
        signal.signal(number, previous[number])
        LOG.info("%s: finishing this step, then saving", signal.Signals(number).name)

    previous = {int(number): signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
