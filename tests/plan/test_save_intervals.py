"""Intervals of saves in steps and epochs, and the multiples that are kept."""

from __future__ import annotations

import pytest

from loopwright.errors import SettingError
from loopwright.loop import TrainingLoop
from loopwright.plan import Plan, plan_fit

OTHERS = "because other steps may not be saved; try"


def plan(save_every: int | str | None, keep_every: int | str | None = None) -> Plan:
    return plan_fit(TrainingLoop(num_steps=200), 45, save_every=save_every, keep_every=keep_every)


@pytest.mark.parametrize(
    ("save_every", "keep_every", "steps"),
    [
        ("1 epoch", "2 epochs", (45, 90)),
        ("0.2 epochs", "1 epoch", (9, 45)),
        (9, "1 epoch", (9, 45)),
        ("1 epoch", 90, (45, 90)),
        ("1 epoch", None, (45, None)),
        (None, None, (None, None)),
    ],
)
def test_intervals_are_converted_to_steps(
    save_every: int | str | None, keep_every: int | str | None, steps: tuple[int | None, int | None]
) -> None:
    ours = plan(save_every, keep_every)
    assert (ours.save_every, ours.keep_every) == steps
    assert ours.save_every_text == (save_every if isinstance(save_every, str) else None)


@pytest.mark.parametrize(
    ("save_every", "keep_every", "line"),
    [
        (
            "0.3 epochs",
            None,
            "checkpoint.every_n_steps='0.3 epochs': expected a whole number of steps, but an epoch has 45 steps, so "
            "this is 13.5; use checkpoint.every_n_steps=14.",
        ),
        (
            10,
            "0.3 epochs",
            "checkpoint.keep_every='0.3 epochs': expected a whole number of steps, but an epoch has 45 steps, so "
            "this is 13.5; use checkpoint.keep_every=10.",
        ),
        (
            10,
            "1 epoch",
            f"checkpoint.keep_every='1 epoch' (45 steps): expected a multiple of every_n_steps=10, {OTHERS} 40.",
        ),
        (
            "1 epoch",
            100,
            f"checkpoint.keep_every=100: expected a multiple of every_n_steps='1 epoch' (45 steps), {OTHERS} 90.",
        ),
    ],
)
def test_wrong_intervals_are_refused_with_the_nearest_that_works(
    save_every: int | str, keep_every: int | str | None, line: str
) -> None:
    with pytest.raises(SettingError) as caught:
        plan(save_every, keep_every)
    assert str(caught.value) == line


def test_the_plan_shows_a_kept_interval_in_epochs() -> None:
    assert plan("1 epoch", "2 epochs").notes == ("checkpoint.keep_every=2 epochs: every 90 steps",)
    assert plan("1 epoch", 90).notes == ()
