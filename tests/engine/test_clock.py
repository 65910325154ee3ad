"""Clock of the training: what is counted between two log steps."""

from __future__ import annotations

import types

import pytest

from loopwright.engine import clock
from loopwright.engine.clock import TrainClock


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds that the clock reads; the test sets its one entry."""
    time = [0.0]
    monkeypatch.setattr(clock, "time", types.SimpleNamespace(perf_counter=lambda: time[0]))
    return time


def test_validation_and_saving_are_not_counted(now: list[float]) -> None:
    """Catches a rate that falls with each validation."""
    ours = TrainClock()
    ours.begin(0)
    for started, stopped in ((0.0, 2.0), (100.0, 101.0)):
        now[0] = started
        ours.start()
        now[0] = stopped
        ours.stop()
    now[0] = 200.0
    assert ours.lap(6) == {"train/seconds": 3.0, "train/steps_per_second": 2.0}
    now[0] = 300.0
    assert ours.lap(6)["train/seconds"] == 0.0


def test_a_lap_counts_since_the_lap_before(now: list[float]) -> None:
    """Catches a mean over the whole run in place of the rate since the last log step."""
    ours = TrainClock()
    ours.begin(0)
    ours.start()
    for step, seconds, rate in ((10, 5.0, 2.0), (20, 6.0, 10.0)):
        now[0] = seconds
        assert ours.lap(step)["train/steps_per_second"] == rate


def test_steps_before_a_resume_are_not_counted(now: list[float]) -> None:
    """Catches a first rate of a resumed run that counts all steps since the beginning of the run."""
    ours = TrainClock()
    ours.begin(1000)
    ours.start()
    now[0] = 2.0
    assert ours.lap(1004)["train/steps_per_second"] == 2.0


def test_a_second_fit_begins_at_0_also_after_an_error(now: list[float]) -> None:
    """Catches a clock that an exception left running, which would count the time between two fits."""
    ours = TrainClock()
    ours.begin(0)
    ours.start()
    assert [*ours.timed(iter("ab"))] == ["a", "b"]
    now[0] = 50.0
    ours.begin(3)
    assert (ours.seconds, ours.data_seconds) == (0.0, 0.0)
    now[0] = 60.0
    with ours.paused():  # is not running
        now[0] = 61.0
    ours.start()
    now[0] = 63.0
    with ours.paused():
        now[0] = 99.0
    now[0] = 100.0
    assert ours.seconds == 3.0


def test_no_time_is_a_rate_of_0(now: list[float]) -> None:
    """Catches a division by zero where the clock is coarse."""
    ours = TrainClock()
    ours.start()
    assert ours.lap(1) == {"train/seconds": 0.0, "train/steps_per_second": 0.0}
