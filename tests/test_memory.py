"""The memory that a Plan reasons about: which bytes are written, how arenas place fields, what views share."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hipgpt.backends.null import NullDevice
from hipgpt.plan import WrittenMemory
from hipgpt.tensor import ALIGNMENT_ELEMENTS, Arena, DType, Field, Tensor


class OneByte:
    """Stands for a DType of one byte, so that addresses count elements."""

    size_bytes = 1


MEMORY = 12
ranges = st.tuples(st.integers(0, MEMORY - 1), st.integers(1, 5)).map(lambda r: (r[0], min(MEMORY, sum(r))))


@settings(deadline=None, max_examples=500)
@given(st.lists(ranges, max_size=12), ranges)
def test_written_memory_is_a_set_of_bytes(written, asked):
    def piece(start, stop):
        return Tensor("piece", (stop - start,), OneByte, start, None)

    memory, model = WrittenMemory(), set()
    for first, last in written:
        memory.add(piece(first, last))
        model |= set(range(first, last))
    assert memory.covers(piece(*asked)) == (set(range(*asked)) <= model)


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=3), min_size=1, max_size=8))
def test_arena_places_fields_in_order_on_aligned_disjoint_offsets(shapes):
    device = NullDevice()
    fields = [Field(f"f{i}", tuple(shape)) for i, shape in enumerate(shapes)]
    arena = Arena(device, "arena", fields)
    end = 0
    for field in fields:
        assert arena.offsets[field.name] >= end
        assert arena.offsets[field.name] % ALIGNMENT_ELEMENTS == 0
        assert arena[field.name].address == arena.flat.address + 4 * arena.offsets[field.name]
        assert arena[field.name].shape == field.shape
        end = arena.offsets[field.name] + field.elements
    assert end <= arena.flat.elements < end + ALIGNMENT_ELEMENTS
    assert Arena(device, "another", fields).offsets == arena.offsets


def test_arenas_of_a_device_do_not_overlap():
    device = NullDevice()
    arenas = [Arena(device, str(i), [Field("x", (i + 1,)), Field("y", (200,))]) for i in range(3)]
    spans = [(arena.flat.address, arena.flat.address + arena.flat.size_bytes) for arena in arenas]
    assert all(first[1] <= second[0] for first, second in zip(spans, spans[1:], strict=False))


@pytest.mark.parametrize("fields", [
    [Field("x", (2,)), Field("x", (3,))],
    [Field("x", (2,)), Field("y", (3,), DType.I32)],
], ids=["name twice", "two dtypes"])  # fmt: skip
def test_a_table_that_no_arena_can_hold_is_refused(fields):
    with pytest.raises(ValueError, match="arena: [xy] is listed twice or has another dtype"):
        Arena(NullDevice(), "arena", fields)


def test_a_view_keeps_the_number_of_elements():
    x = Arena(NullDevice(), "test", [Field("x", (4, 6))])["x"]
    assert x.view(3, 8).address == x.address
    with pytest.raises(ValueError, match=r"test.x: cannot view shape \(4, 6\) as \(5, 5\)"):
        x.view(5, 5)


def test_rows_are_a_part_of_the_same_memory():
    x = Arena(NullDevice(), "test", [Field("x", (4, 6))])["x"]
    part = x.rows(1, 3)
    assert (part.shape, part.address) == ((2, 6), x.address + 6 * 4)
    for start, stop in ((-1, 2), (2, 2), (3, 5)):
        with pytest.raises(ValueError, match=f"test.x: rows {start}:{stop} of 4"):
            x.rows(start, stop)
