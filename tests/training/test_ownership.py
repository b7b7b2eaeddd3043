"""Each weight has one owner among the ranks, shares are about equal, and matrices for Muon stay whole."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tiny import MODEL

from hipgpt.compute.backends.cpu import traits
from hipgpt.compute.backends.null import NullDevice
from hipgpt.compute.process_group import ProcessGroup
from hipgpt.compute.tensor import ALIGNMENT_ELEMENTS, Arena, DType, Field
from hipgpt.gpt.parameters import parameters
from hipgpt.training.ownership import Ownership

TRAITS = traits((DType.F32, DType.BF16))


@st.composite
def fields(draw):
    table = []
    for number in range(draw(st.integers(1, 6))):
        columns, rows = draw(st.integers(1, 300)), draw(st.lists(st.integers(1, 40), min_size=1, max_size=4))
        matrices = tuple(rows) if draw(st.booleans()) else ()
        table.append(Field(f"field{number}", (sum(rows), columns), matrices=matrices))
    return table


def ownerships(table, size, whole_matrices):
    for rank in range(size):
        device = NullDevice(TRAITS, ProcessGroup(rank, size))
        yield Ownership(Arena(device, "weights", table), device.communicator.group, whole_matrices)


@given(fields(), st.integers(1, 9), st.booleans())
def test_every_element_has_one_owner(table, size, whole_matrices):
    found = next(ownerships(table, size, whole_matrices))
    for field in table:
        pieces = [piece for pieces in found.pieces for piece in pieces if piece.field.name == field.name]
        pieces.sort(key=lambda piece: piece.first)
        assert [pieces[0].first, pieces[-1].last] == [0, field.elements]
        assert all(before.last == after.first for before, after in itertools.pairwise(pieces))
    ranges = sorted(elements for pieces in found.pieces for elements in found.ranges(pieces))
    assert ranges[0][0] == 0 and ranges[-1][1] == found.weights.flat.elements
    assert all(before[1] == after[0] for before, after in itertools.pairwise(ranges))


@given(fields(), st.integers(1, 9), st.booleans())
def test_shares_are_about_equal(table, size, whole_matrices):
    found = next(ownerships(table, size, whole_matrices))
    for matrices in (True, False):
        kind = [field for field in table if bool(field.matrices and whole_matrices) == matrices]
        names = {field.name for field in kind}
        shares = [sum(p.last - p.first for p in pieces if p.field.name in names) for pieces in found.pieces]
        largest = max((rows * f.shape[1] for f in kind for rows in f.matrices), default=0) if matrices else 0
        assert max(shares) <= sum(shares) / size + largest + ALIGNMENT_ELEMENTS


@given(fields(), st.integers(1, 9))
def test_matrices_for_muon_stay_whole(table, size):
    found = next(ownerships(table, size, whole_matrices=True))
    for field in table:
        pieces = [piece for pieces in found.pieces for piece in pieces if piece.field.name == field.name]
        if field.matrices:
            pieces.sort(key=lambda piece: piece.first)
            assert [rows for piece in pieces for rows in piece.part.matrices] == list(field.matrices)
            assert all(piece.part.elements == piece.last - piece.first for piece in pieces)


@given(fields(), st.integers(1, 9))
def test_moments_lie_as_the_weights_that_they_belong_to(table, size):
    for found in ownerships(table, size, whole_matrices=False):
        moments = Arena(NullDevice(TRAITS), "moments", [piece.part for piece in found.own])
        first = found.ranges(found.own)[0][0] if found.own else 0
        for piece in found.own:
            assert moments.offsets[piece.field.name] // 4 == found.range_of(piece)[0] - first


def test_one_rank_owns_everything_in_one_range():
    (found,) = ownerships(parameters(MODEL), 1, whole_matrices=False)
    assert [piece.part.shape for piece in found.own] == [field.shape for field in parameters(MODEL)]
    assert found.ranges(found.own) == [(0, found.weights.flat.elements)]


@pytest.mark.parametrize("size", [2, 4])
def test_each_of_several_ranks_has_its_part_of_the_moments(size):
    for whole_matrices in (False, True):
        shares = [
            sum(p.part.elements for p in found.own) for found in ownerships(parameters(MODEL), size, whole_matrices)
        ]
        assert sum(shares) == sum(field.elements for field in parameters(MODEL))
        assert max(shares) < 1.5 * sum(shares) / size
