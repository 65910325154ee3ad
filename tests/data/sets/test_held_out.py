"""`hold_out`: every row is in exactly one part, in order, and held-out rows are at regular intervals."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loopwright.data.sets.held_out import Part, hold_out


@given(st.integers(2, 400), st.fractions(0, 1, max_denominator=50).filter(lambda f: 0 < f < 1))
def test_the_two_parts_contain_each_row_once_at_regular_intervals(num_rows: int, fraction: Fraction) -> None:
    train, val = Part(num_rows, fraction, is_val=False), Part(num_rows, fraction, is_val=True)
    is_val = [math.floor((i + 1) * fraction) > math.floor(i * fraction) for i in range(num_rows)]
    assert val.all_rows().tolist() == [i for i in range(num_rows) if is_val[i]]
    assert train.all_rows().tolist() == [i for i in range(num_rows) if not is_val[i]]


def test_a_fraction_of_one_fifth_holds_out_every_fifth_row() -> None:
    train, val = hold_out(11, 0.2)
    assert val.all_rows().tolist() == [4, 9]
    assert (len(train), len(val)) == (9, 2)


def test_rows_of_a_huge_set_are_computed_without_a_list() -> None:
    train, val = hold_out(10**12, 0.123456)
    last = torch.tensor([len(val) - 1])
    assert val.rows(last) == 10**12 - 1
    assert len(train) + len(val) == 10**12


@pytest.mark.parametrize(
    ("num_rows", "fraction", "line"),
    [
        (1, 0.2, "path: contains 1 sample; expected at least 2, one for training and one for validation."),
        (10, 0, "val_fraction=0: expected a fraction in (0, 1)."),
        (10, 1.0, "val_fraction=1.0: expected a fraction in (0, 1)."),
        (10, float("nan"), "val_fraction=nan: expected a fraction in (0, 1)."),
        (10, "0.2", "val_fraction='0.2': expected a fraction in (0, 1)."),
        (
            4,
            0.2,
            "val_fraction=0.2: expected a fraction that leaves at least one row for training and one for validation, "
            "out of 4.",
        ),
        (
            10,
            1e-9,
            "val_fraction=1e-09: expected a fraction that leaves at least one row for training and one for validation, "
            "out of 10.",
        ),
    ],
)
def test_a_fraction_that_leaves_a_part_empty_is_refused(num_rows: int, fraction: float, line: str) -> None:
    with pytest.raises(ValueError) as caught:
        hold_out(num_rows, fraction)
    assert str(caught.value) == line
