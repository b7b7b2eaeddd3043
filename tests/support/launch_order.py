"""What each launch of a plan waits for, directly or not."""

from collections.abc import Sequence

from hipgpt.compute.dependencies import predecessors, uses
from hipgpt.compute.launch import Launch


def waited_for(found: Sequence[Sequence[int]]) -> list[set[int]]:
    """Return all that each launch waits for, from those that it waits for directly."""
    everything: list[set[int]] = []
    for direct in found:
        everything.append(set(direct).union(*(everything[other] for other in direct)))
    return everything


def order_of(launches: Sequence[Launch]) -> list[set[int]]:
    """Return all that each launch of a plan waits for."""
    return waited_for(predecessors([uses(launch) for launch in launches]))
