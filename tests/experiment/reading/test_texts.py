"""Texts of the commands that only read: times in words, sparklines, and numbers that are not finite."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopwright.experiment.reading.texts import number_text, sparkline, when_text

NOW = datetime(2026, 12, 1, 12).astimezone()


@pytest.mark.parametrize(
    ("age", "text"),
    [
        (timedelta(seconds=59), "just now"),
        (timedelta(minutes=2, seconds=30), "2 min ago"),
        (timedelta(hours=3), "3 h ago"),
        (timedelta(hours=11, minutes=59), "11 h ago"),
        (timedelta(hours=13), "yesterday"),
        (timedelta(days=2), "2 days ago"),
        (timedelta(days=6), "6 days ago"),
        (timedelta(days=30), "2026-11-01"),
        (timedelta(days=-1), "2026-12-02"),
    ],
)
def test_times_in_words(age: timedelta, text: str) -> None:
    assert when_text(NOW - age, NOW) == text
    assert when_text((NOW - age).astimezone(UTC), NOW) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (math.nan, "NaN"), (math.inf, "Infinity"), (-math.inf, "-Infinity"), (0.07283456, "0.07283")],
)
def test_numbers_that_are_not_finite_are_words(value: float | None, text: str) -> None:
    assert number_text(value) == text


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([], ""),
        ([3.0], "▁"),
        ([1.0, 1.0], "▁▁"),
        ([1.0, 10.0, 100.0], "▁▅█"),  # logarithmic
        ([0.0, 7.0, math.nan, math.inf], "▁█××"),
        ([-1e308, 1e308], "▁█"),
    ],
)
def test_sparklines(values: list[float], line: str) -> None:
    assert sparkline(range(len(values)), values, 8) == line


@given(
    values=st.lists(st.floats(), max_size=60),
    gaps=st.lists(st.integers(1, 10**6), min_size=60, max_size=60),
    width=st.integers(1, 40),
)
def test_a_sparkline_fits_and_shows_each_value_that_is_not_finite(
    values: list[float], gaps: list[int], width: int
) -> None:
    steps = [sum(gaps[:place]) for place in range(len(values))]
    line = sparkline(steps, values, width)
    assert len(line) == min(len(values), width)
    assert ("×" in line) >= any(not math.isfinite(value) for value in values)


@given(values=st.lists(st.floats(0, 1e6), min_size=2, max_size=30))
def test_a_falling_metric_has_a_falling_sparkline(values: list[float]) -> None:
    line = sparkline(range(len(values)), sorted(values, reverse=True), 40)
    assert list(line) == sorted(line, reverse=True)
