"""Laws of `Backlog`: every value is sent once and in order, also if the process is killed and the run is resumed."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from loopwright.loggers.backlog import Backlog, Point

NAMES = ("train/loss", "val/loss", "lr")


def points_of(steps: Sequence[int], names: Sequence[str] = NAMES) -> list[Point]:
    return [Point(step, name, step / 7, 0.0) for step in steps for name in names]


def send_all(backlog: Backlog, limit: int, *, is_end: bool) -> list[Point]:
    sent: list[Point] = []
    while points := backlog.take(limit, is_end=is_end):
        assert len(points) <= limit
        sent += points
        backlog.note_sent(points)
    return sent


@st.composite
def runs(draw: st.DrawFn) -> list[Point]:
    """Draw the values of a run: at each step, a part of the names."""
    steps = sorted(draw(st.sets(st.integers(0, 30), max_size=8)))
    return [point for step in steps for point in points_of([step], draw(st.lists(st.sampled_from(NAMES), unique=True)))]


@given(runs(), st.integers(1, 5), st.booleans(), st.data())
def test_every_value_is_sent_once_and_in_order(
    points: list[Point], limit: int, waits_for_step: bool, data: st.DataObject
) -> None:
    backlog = Backlog(waits_for_step=waits_for_step)
    sent: list[Point] = []
    cut = data.draw(st.integers(0, len(points)))
    backlog.add(points[:cut])
    sent += send_all(backlog, limit, is_end=False)
    backlog.add(points[cut:])
    sent += send_all(backlog, limit, is_end=True)
    assert sent == points
    assert not backlog.points


@given(runs(), st.data())
def test_a_resumed_run_sends_what_the_receiver_lacks(points: list[Point], data: st.DataObject) -> None:
    """A process sends some values, saves a checkpoint, and is killed. The receiver has stored a part of the rest."""
    first = Backlog()
    num_saved = data.draw(st.integers(0, len(points)))
    first.add(points[:num_saved])
    stored = first.take(data.draw(st.integers(1, 9)))
    first.note_sent(stored)
    checkpoint = first.points
    first.add(points[num_saved:])
    stored = stored + first.take(data.draw(st.integers(1, 9)))  # stored, but the process was killed before it knew

    second = Backlog()
    second.put_first(checkpoint)
    second.add(points[num_saved:])
    last_steps = {name: max(p.step for p in stored if p.name == name) for name in {p.name for p in stored}}
    second.know(last_steps)
    assert stored + send_all(second, 4, is_end=True) == points


@given(st.lists(st.integers(0, 9), unique=True, min_size=1))
def test_the_values_of_the_newest_step_are_held_back(steps: list[int]) -> None:
    backlog = Backlog(waits_for_step=True)
    backlog.add(points_of(sorted(steps)))
    assert {point.step for point in send_all(backlog, 100, is_end=False)} == set(sorted(steps)[:-1])
    backlog.add(points_of([max(steps)], ["val/accuracy"]))
    assert send_all(backlog, 100, is_end=False) == []
    assert len(send_all(backlog, 100, is_end=True)) == len(NAMES) + 1


def test_of_two_values_of_a_step_the_first_is_sent() -> None:
    backlog = Backlog()
    backlog.add([Point(3, "a", 1.0, 0.0), Point(3, "a", 2.0, 0.0), Point(2, "a", 3.0, 0.0), Point(2, "b", 4.0, 0.0)])
    assert [point.value for point in send_all(backlog, 100, is_end=True)] == [1.0, 4.0]
    assert backlog.last_steps == {"a": 3, "b": 2}
    assert not backlog.points
