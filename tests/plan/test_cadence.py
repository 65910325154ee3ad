"""Cadences: multiples of steps, and exact fractions."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from math import ceil

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopwright.plan.cadence import next_multiple, steps_between_validations


@given(step=st.integers(0, 10**13), every=st.integers(1, 10**12), origin=st.integers(0, 10**12))
def test_next_multiple_is_the_first_one_after_the_step(step: int, every: int, origin: int) -> None:
    found = next_multiple(step, every, origin)
    assert step < found <= step + every
    assert (found - origin) % every == 0


@given(fraction=st.floats(0, 1, exclude_min=True), num_steps=st.integers(1, 10**15))
def test_fractions_are_exact_for_the_decimal_that_prints_them(fraction: float, num_steps: int) -> None:
    every = steps_between_validations(fraction, num_steps)
    assert every == ceil(Fraction(Decimal(str(fraction))) * num_steps)
    assert 1 <= every <= num_steps


@given(hundredths=st.integers(1, 100), num_steps=st.integers(1, 10**9))
def test_fractions_in_hundredths_are_integer_arithmetic(hundredths: int, num_steps: int) -> None:
    assert steps_between_validations(hundredths / 100, num_steps) == -(-hundredths * num_steps // 100)


@pytest.mark.parametrize(
    ("eval_frequency", "num_steps", "every"),
    [
        (0.07, 100, 7),  # would be 7.000000000000001 in floating point
        (0.28, 100, 28),
        (0.29, 100, 29),
        (1e-9, 100, 1),
        (1e-9, 10**12, 1000),
        (5e-324, 10**12, 1),
        (1.0, 10**12, 10**12),
        (0.5, 7, 4),
        (0.999, 10, 10),
        (numpy.float64(0.07), 100, 7),  # its repr is not a number
        (1, 100, 1),
        (100, 100, 100),
        (500, 100, 500),
        (None, 100, None),
        (0, 100, None),
        (0.0, 100, None),
        (0.5, 0, None),
        (1, 0, None),
    ],
)
def test_steps_between_validations(eval_frequency: int | float | None, num_steps: int, every: int | None) -> None:
    assert steps_between_validations(eval_frequency, num_steps) == every
