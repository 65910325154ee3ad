"""The remaining time and the narrow form of the live line."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopwright.loggers.views import FitView, Pace
from loopwright.loop import TrainingLoop
from loopwright.plan import plan_fit


def test_the_rate_is_measured_over_the_last_tenth_of_the_time() -> None:
    pace = Pace(began_seconds=0.0)
    for second in range(1, 501):  # one step a second
        pace.steps_per_second(second, float(second))
    for second in range(501, 1001):  # then ten steps a second
        rate = pace.steps_per_second(500 + 10 * (second - 500), float(second))
    assert rate == pytest.approx(10.0, rel=0.01)


@given(st.lists(st.tuples(st.floats(0.01, 50), st.integers(0, 20)), min_size=1, max_size=60))
def test_the_rate_is_never_negative_and_is_the_mean_rate_at_first(increments: list[tuple[float, int]]) -> None:
    pace, now, done = Pace(began_seconds=0.0), 0.0, 0
    for seconds, steps in increments:
        now, done = now + seconds, done + steps
        rate = pace.steps_per_second(done, now)
        if not done:
            assert rate is None
        else:
            assert rate is not None and rate > 0
            assert now > 10 or rate == pytest.approx(done / now)


def view_at(step: int) -> FitView:
    plan = plan_fit(TrainingLoop(max_steps=20_000), num_micro_batches=45, val={"val": 3})
    trainer: Any = SimpleNamespace(global_step=step)
    return FitView(trainer, plan, None, {"train/loss": 0.4137, "train/accuracy": 0.91}, {"val/loss": 0.5221}, 171.3)


@pytest.mark.parametrize("step", [1, 1234, 19_999])
def test_forty_columns_hold_the_step_the_loss_and_the_remaining_time(step: int) -> None:
    text = view_at(step).live_text(40)[:40]
    assert text.startswith(f"{step}/20000  ") and " left  loss 0.4137" in text


def test_a_wide_terminal_shows_all() -> None:
    text = view_at(1234).live_text(120)
    assert text.startswith("epoch 28  step 1234/20000  171 steps/s  ") and text.endswith("train/accuracy 0.91")
    assert "train/loss 0.4137  val/loss 0.5221" in text


def test_a_slow_training_shows_seconds_per_step() -> None:
    view = view_at(5)
    view.steps_per_second = 0.25
    assert "4 s/step" in view.live_text(120)
