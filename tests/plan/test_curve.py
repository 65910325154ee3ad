"""A curve drawn as a line of characters."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from loopwright.plan import draw_curve, in_ascii


@given(st.lists(st.floats(0, 1e9), max_size=300), st.integers(1, 60))
def test_a_line_is_bounded_and_shows_the_largest_as_the_highest_bar(values: list[float], width: int) -> None:
    line = draw_curve(values, width)
    assert len(line) == min(width, len(values))
    assert set(line) <= set("▁▂▃▄▅▆▇█")
    assert ("█" in line) == (max(values, default=0) > 0)
    assert in_ascii(line).isascii()


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=300))
def test_a_rising_curve_is_drawn_rising(values: list[float]) -> None:
    line = draw_curve(sorted(values))
    assert list(line) == sorted(line)
