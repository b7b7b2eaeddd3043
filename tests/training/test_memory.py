"""The memory that a Plan checks: written bytes, the offsets of fields in arenas, and views."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hipgpt.base.errors import UserError
from hipgpt.compute.backends import cpu
from hipgpt.compute.backends.cpu import traits
from hipgpt.compute.backends.null import NullDevice
from hipgpt.compute.plan import WrittenMemory
from hipgpt.compute.tensor import ALIGNMENT_ELEMENTS, Arena, DType, Field, Tensor

TRAITS = traits((DType.F32, DType.BF16))


class OneByte:
    """A stand-in for a DType of one byte, so that addresses count elements."""

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
@given(
    st.lists(
        st.tuples(st.sampled_from(DType), st.lists(st.integers(1, 40), min_size=1, max_size=3)), min_size=1, max_size=8
    )
)
def test_arena_places_fields_in_order_on_aligned_disjoint_offsets(fields):
    device = NullDevice(TRAITS)
    table = [Field(f"f{i}", tuple(shape), dtype) for i, (dtype, shape) in enumerate(fields)]
    arena, end = Arena(device, "arena", table), 0
    for field in table:
        tensor, alignment = arena[field.name], ALIGNMENT_ELEMENTS * field.dtype.size_bytes
        assert end <= arena.offsets[field.name]
        assert tensor.address == arena[table[0].name].address + arena.offsets[field.name]
        assert (tensor.shape, tensor.dtype) == (field.shape, field.dtype)
        end = arena.offsets[field.name] + tensor.size_bytes
    assert end <= arena.size_bytes < end + alignment


@given(st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=3), min_size=1, max_size=8))
def test_arenas_of_one_table_line_up_element_by_element(shapes):
    device = NullDevice(TRAITS)
    tables = [
        [Field(f"f{i}", tuple(shape), dtype) for i, shape in enumerate(shapes)] for dtype in (DType.F32, DType.BF16)
    ]
    wide, narrow = (Arena(device, "arena", table) for table in tables)
    assert wide.flat.shape == narrow.flat.shape
    assert {name: offset // 4 for name, offset in wide.offsets.items()} == {
        name: offset // 2 for name, offset in narrow.offsets.items()
    }


def test_an_arena_of_several_dtypes_has_no_flat_tensor():
    arena = Arena(NullDevice(TRAITS), "arena", [Field("x", (2,)), Field("y", (3,), DType.BF16)])
    with pytest.raises(ValueError, match=r"arena: has fields of \['bf16', 'f32'\], so no flat tensor"):
        _ = arena.flat


def test_arenas_of_a_device_do_not_overlap():
    device = NullDevice(TRAITS)
    arenas = [Arena(device, str(i), [Field("x", (i + 1,)), Field("y", (200,))]) for i in range(3)]
    spans = [(arena.flat.address, arena.flat.address + arena.flat.size_bytes) for arena in arenas]
    assert all(first[1] <= second[0] for first, second in zip(spans, spans[1:], strict=False))


def test_a_table_that_lists_a_field_twice_is_refused():
    with pytest.raises(ValueError, match="arena: a field is listed twice: \\['x', 'x'\\]"):
        Arena(NullDevice(TRAITS), "arena", [Field("x", (2,)), Field("x", (3,))])


def test_a_view_keeps_the_number_of_elements():
    x = Arena(NullDevice(TRAITS), "test", [Field("x", (4, 6))])["x"]
    assert x.view(3, 8).address == x.address
    with pytest.raises(ValueError, match=r"test.x: cannot view shape \(4, 6\) as \(5, 5\)"):
        x.view(5, 5)


def test_rows_are_a_part_of_the_same_memory():
    x = Arena(NullDevice(TRAITS), "test", [Field("x", (4, 6))])["x"]
    part = x.rows(1, 3)
    assert (part.shape, part.address) == ((2, 6), x.address + 6 * 4)
    for start, stop in ((-1, 2), (2, 2), (3, 5)):
        with pytest.raises(ValueError, match=f"test.x: rows {start}:{stop} of 4"):
            x.rows(start, stop)


def test_the_cpu_promises_no_more_memory_than_the_machine_has_and_takes_back_what_is_freed(monkeypatch):
    monkeypatch.setattr(cpu, "physical_bytes", lambda: 1000)
    device = cpu.CpuDevice(1)
    _, owner = device.allocate(600)
    with pytest.raises(UserError, match="out of memory: asked for 500 bytes beside 600, this machine has 1,000; lower"):
        device.allocate(500)
    del owner
    device.allocate(500)
