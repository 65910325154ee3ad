"""Windows (the micro-batches of a step) cover each pass once, in order, and never cross the end of a pass."""

from __future__ import annotations

import gc
import sys
from types import FrameType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopwright.plan.passes import Passes, Window


@st.composite
def sized_passes(draw: st.DrawFn) -> Passes:
    length = draw(st.integers(1, 25))
    return Passes(
        num_micro_batches=length,
        grad_accum_steps=draw(st.integers(1, length)),
        start_micro_batch=draw(st.integers(0, length)),
    )


@given(passes=sized_passes(), num_steps=st.integers(0, 80))
def test_windows_tile_each_pass(passes: Passes, num_steps: int) -> None:
    assert passes.num_micro_batches is not None
    seen = [
        (window.pass_index, window.first_micro_batch + offset)
        for window in map(passes.at, range(num_steps))
        for offset in range(window.num_micro_batches)
    ]
    start = passes.start_micro_batch
    assert seen == [divmod(index, passes.num_micro_batches) for index in range(start, start + len(seen))]
    assert len(seen) == passes.num_consumed(num_steps)


@given(passes=sized_passes(), num_steps=st.integers(1, 80))
def test_only_the_last_window_of_a_pass_is_smaller(passes: Passes, num_steps: int) -> None:
    for window in map(passes.at, range(num_steps)):
        is_last = window.first_micro_batch + window.num_micro_batches == passes.num_micro_batches
        assert 1 <= window.num_micro_batches <= passes.grad_accum_steps
        assert is_last or window.num_micro_batches == passes.grad_accum_steps


@given(passes=sized_passes(), start=st.integers(0, 60), num_steps=st.integers(0, 60))
def test_a_range_of_windows_equals_the_single_windows(passes: Passes, start: int, num_steps: int) -> None:
    stop = start + num_steps
    windows = list(passes.between(start, stop))
    assert windows == [passes.at(step_index) for step_index in range(start, stop)]
    assert all(type(window) is Window for window in windows)


@given(per_step=st.integers(1, 9), start=st.integers(0, 50), num_steps=st.integers(0, 50))
def test_a_pass_of_unknown_length_is_endless(per_step: int, start: int, num_steps: int) -> None:
    passes = Passes(num_micro_batches=None, grad_accum_steps=per_step, start_micro_batch=start)
    expected = [Window(0, start + index * per_step, per_step) for index in range(num_steps)]
    assert list(passes.between(0, num_steps)) == expected
    assert [passes.at(index) for index in range(num_steps)] == expected
    assert passes.num_consumed(num_steps) == num_steps * per_step
    assert passes.steps_per_pass is None
    assert passes.steps_in_first_pass is None


@pytest.mark.parametrize(
    ("start_micro_batch", "windows"),
    [
        (0, [(0, 0, 4), (0, 4, 4), (0, 8, 2), (1, 0, 4)]),
        (3, [(0, 3, 4), (0, 7, 3), (1, 0, 4), (1, 4, 4)]),  # the pass was begun with another grad_accum_steps
        (9, [(0, 9, 1), (1, 0, 4), (1, 4, 4), (1, 8, 2)]),
        (10, [(1, 0, 4), (1, 4, 4), (1, 8, 2), (2, 0, 4)]),  # no micro-batch of the pass is left
    ],
)
def test_windows_from_within_a_pass(start_micro_batch: int, windows: list[tuple[int, int, int]]) -> None:
    passes = Passes(num_micro_batches=10, grad_accum_steps=4, start_micro_batch=start_micro_batch)
    assert list(passes.between(0, 4)) == windows


def test_far_windows_are_computed_directly() -> None:
    passes = Passes(num_micro_batches=10**11 + 1, grad_accum_steps=3, start_micro_batch=10**11)
    # 10^11 + 1 micro-batches are 33,333,333,334 steps, the last of two micro-batches.
    assert passes.at(10**12) == Window(30, 3 * (10**12 - 1 - 29 * 33_333_333_334), 3)
    assert next(passes.between(10**12, 2 * 10**12)) == passes.at(10**12)


def test_a_step_calls_no_python_code() -> None:
    """The training loop reads the windows. Their cost must depend on passes, not on steps."""

    def count_events(num_steps: int) -> int:
        passes = Passes(num_micro_batches=5000, grad_accum_steps=2)
        num_events = 0

        def count(frame: FrameType, event: str, arg: object) -> None:
            nonlocal num_events
            num_events += 1

        previous = sys.getprofile()
        gc.disable()  # a garbage collection would call functions of other libraries
        sys.setprofile(count)
        try:
            for _window in passes.between(0, num_steps):
                pass
        finally:
            sys.setprofile(previous)
            gc.enable()
        return num_events

    assert count_events(2000) == count_events(10)
