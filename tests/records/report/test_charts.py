"""Laws of the points, the axes and the charts of a report."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopwright.records.report.axis import make_axis, number_text
from loopwright.records.report.builder import render
from loopwright.records.report.downsample import downsample
from loopwright.records.report.svg_chart import Line, Mark, line_chart
from records.report.pages import Page

values = st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=300)
numbers = st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20)


@given(values, st.integers(8, 60))
def test_few_points_remain_and_the_extremes_are_among_them(given_values: list[float], limit: int) -> None:
    points = downsample(range(len(given_values)), given_values, limit)
    finite = [value for value in given_values if math.isfinite(value)]
    kept = [y for _, y in points if y is not None]
    assert len(points) <= max(limit, 0) and [x for x, _ in points] == sorted({x for x, _ in points})
    assert dict(points).items() <= {x: (y if math.isfinite(y) else None) for x, y in enumerate(given_values)}.items()
    if finite:
        assert min(kept) == min(finite) and max(kept) == max(finite)
    if len(finite) < len(given_values):
        assert any(y is None for _, y in points)
    if given_values:
        assert points[0][0] == 0 and points[-1][0] == len(given_values) - 1


@given(numbers, st.booleans())
def test_an_axis_contains_all_values_in_their_order(given_numbers: list[float], may_be_log: bool) -> None:
    axis = make_axis(given_numbers, may_be_log=may_be_log)
    places = [axis.position(value) for value in sorted(given_numbers)]
    assert places == sorted(places) and all(0 <= place <= 1 for place in places)
    assert axis.low < axis.high and list(axis.ticks) == sorted(axis.ticks) and len(axis.ticks) <= 12


def test_a_wide_range_of_losses_has_a_logarithmic_axis_with_powers_of_ten() -> None:
    axis = make_axis([0.001, 1.0], may_be_log=True)
    assert axis.is_log and all(math.isclose(tick, 10 ** round(math.log10(tick))) for tick in axis.ticks)
    assert not make_axis([0.5, 1.0], may_be_log=True).is_log and not make_axis([-1.0, 1.0], may_be_log=True).is_log


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0705423, "0.07054"),
        (2490.3, "2,490"),
        (64000.0, "64,000"),
        (-0.5, "−0.5"),
        (1e-9, "1e−09"),
        (math.nan, "NaN"),
    ],
)
def test_numbers_have_four_digits_and_commas(value: float, text: str) -> None:
    assert number_text(value) == text


@given(values, values)
def test_a_chart_is_a_balanced_element_for_any_values(first: list[float], second: list[float]) -> None:
    lines = [Line(name=n, points=downsample(range(len(v)), v, 50)) for n, v in (("a<b", first), ("b&", second))]
    marks = [Mark(kind=kind, x=1, y=0.5, text="t") for kind in ("best", "checkpoint", "resume", "failed")]
    page = Page(render(line_chart("a <title>", lines, marks=marks)))
    assert page.is_balanced and "a <title>" in page.text
    assert not any("nan" in str(value) or "inf" in str(value) for name, value in page.attributes if name in ("d", "cy"))
