"""Values of a column as people read them: the points of its numbers are below each other, and no digit is lost."""

import math

import pytest

from hipgpt.base.tables import cells


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([2.6, 2.5778], ["2.6000", "2.5778"]),
        ([0.002, 0.01, None], ["0.002", "0.010", ""]),
        ([31864.68, 9453.21], ["31,865", "9,453"]),
        ([1.0, 2.0], ["1", "2"]),
        ([1e-5, 0.25], ["1e-05", "0.25"]),  # as they are, because decimals for both would hide the small one
        ([0.001, 25.5], ["0.001", "25.5"]),
        ([0.0, 0.5], ["0.0", "0.5"]),
        ([math.nan, 0.5], ["nan", "0.5"]),
        ([math.inf, 0.5], ["inf", "0.5"]),
        ([7, 1200], ["7", "1,200"]),
        (["a", None], ["a", ""]),
    ],
)
def test_the_numbers_of_a_column_have_the_same_decimals(values, shown):
    assert [row["x"] for row in cells([{"x": value} for value in values])] == shown


def test_a_table_without_a_row_has_no_cells():
    assert cells([]) == []
