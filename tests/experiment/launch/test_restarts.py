"""`Restarts` limits how often a crashed run is restarted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from loopwright.experiment.launch.restarts import Restarts

STEPS = st.none() | st.integers(0, 5)


@given(st.integers(1, 4), STEPS, st.lists(STEPS, max_size=30))
def test_restarts_are_counted_since_the_last_new_checkpoint(
    limit: int, first: int | None, steps: list[int | None]
) -> None:
    restarts = Restarts(limit, first)
    best, in_a_row = -1 if first is None else first, 0
    for step in steps:
        if step is not None and step > best:
            best, in_a_row = step, 0
        assert restarts.allow_another(step) == (in_a_row < limit)
        in_a_row += 1


def test_a_run_that_makes_progress_is_always_restarted() -> None:
    restarts = Restarts(1)
    assert all(restarts.allow_another(step) for step in range(1000))


def test_a_run_without_progress_is_restarted_up_to_the_limit() -> None:
    restarts = Restarts(3)
    assert [restarts.allow_another(20) for _ in range(5)] == [True, True, True, False, False]
