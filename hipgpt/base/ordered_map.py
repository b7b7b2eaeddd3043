"""A map over threads that yields results in order. Few items are in progress at once, so memory is bounded."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
WAITING_PER_THREAD = 2
MOST_THREADS = 4096  # more than any machine has cores


def check_threads(threads: int) -> None:
    """Raise ValueError unless this is a number of threads that a machine can run."""
    if threads < 1:
        raise ValueError(f"threads: got {threads}, expected 1 or more")
    if threads > MOST_THREADS:
        raise ValueError(f"threads: got {threads}, expected at most {MOST_THREADS}")


def ordered_map(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """Yield function(item) for each item, in order. At most 2 * threads calls or results are held at once."""
    check_threads(threads)
    if threads == 1:
        yield from map(function, items)
        return
    items = iter(items)
    first = [*islice(items, 2)]
    if len(first) == 1:  # there is nothing to run in parallel
        yield function(first[0])
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in chain(first, items):
                waiting.append(pool.submit(function, item))
                if len(waiting) == WAITING_PER_THREAD * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
