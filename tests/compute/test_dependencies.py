"""The order of launches in a graph: a launch waits for all whose memory it shares, and for no other."""

import itertools

from hypothesis import given
from hypothesis import strategies as st
from support.launch_order import order_of, waited_for
from support.recorded_model import MODEL, RecordedModel

from hipgpt.compute.backends.gpu import traits
from hipgpt.compute.backends.null import NullDevice
from hipgpt.compute.catalogue import MATMUL_BACKWARD_WEIGHT
from hipgpt.compute.dependencies import Use, predecessors
from hipgpt.compute.tensor import DType

SOME_USES = st.lists(st.builds(Use, st.integers(0, 12), st.integers(1, 5), st.booleans()), max_size=3)


def conflict(one: list[Use], other: list[Use]) -> bool:
    """Return whether two launches share a byte that one of them writes."""
    return any(
        (a.writes or b.writes) and a.address < b.address + b.size_bytes and b.address < a.address + a.size_bytes
        for a, b in itertools.product(one, other)
    )


@given(st.lists(SOME_USES, max_size=12))
def test_a_launch_waits_for_those_in_conflict_and_for_those_they_wait_for(memory):
    expected: list[set[int]] = []
    for index, own in enumerate(memory):
        direct = {other for other in range(index) if conflict(own, memory[other])}
        expected.append(direct.union(*(expected[other] for other in direct)))
    assert waited_for(predecessors(memory)) == expected


@given(st.lists(SOME_USES, max_size=12))
def test_no_launch_waits_twice_for_another(memory):
    found = predecessors(memory)
    everything = waited_for(found)
    for direct in found:
        for one, other in itertools.permutations(direct, 2):
            assert one not in everything[other]


def test_no_gradient_of_an_input_waits_for_the_gradient_of_its_weight():
    """The latter is off the chain of activations, so a GPU computes it beside the layers before."""
    launches = RecordedModel(NullDevice(traits((DType.F32,))), MODEL).training.launches
    order = order_of(launches)
    numbers = [index for index, launch in enumerate(launches) if launch.op is MATMUL_BACKWARD_WEIGHT]
    assert len(numbers) == 1 + 4 * MODEL.num_layers
    for index in numbers:
        assert launches[index + 1].tensor("dy") == launches[index].tensor("dy")
        assert index not in order[index + 1]
