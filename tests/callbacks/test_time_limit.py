"""Tests of `TimeLimit`, with a simulated clock."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

import tiny
from loopwright import Callback, Checkpointing, TrainingLoop
from loopwright.callbacks import TimeLimit


class Clock(Callback):
    """A simulated clock, advanced by the given number of seconds in each call of the named hooks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **seconds: float) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        for hook, duration in seconds.items():
            setattr(self, hook, lambda *_, duration=duration: self._advance(duration))

    def _advance(self, seconds: float) -> None:
        self.now += seconds


def fit(run_dir: Path, clock: Clock, minutes: float, **settings: Any) -> Any:
    return tiny.trainer(
        TrainingLoop(num_steps=1000, eval_frequency=10),
        callbacks=[clock, TimeLimit(minutes)],
        checkpoint=Checkpointing(every_n_steps=20),
        run_dir=run_dir,
        **settings,
    ).fit(tiny.batches(), [tiny.batches(4)])


@pytest.mark.parametrize("minutes", [2, 10, 60])
def test_a_fit_is_interrupted_before_the_limit_and_saved(
    minutes: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, on_train_step_start=3.0, on_validate_step_start=1.0, on_save_checkpoint=5.0)
    result = fit(tmp_path, clock, minutes)
    assert result.state == "interrupted"
    assert 0.7 * 60 * minutes < clock.now - 1000 <= 60 * minutes
    assert (tmp_path / "checkpoints" / f"step_{result.global_step:08d}").is_dir()


def test_a_long_validation_is_aborted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, on_validate_step_start=100.0)
    result = fit(tmp_path, clock, 5)
    assert (result.state, result.global_step, clock.now) == ("interrupted", 10, 1200.0)


def test_a_fit_shorter_than_the_limit_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, on_train_step_start=0.01)
    assert fit(tmp_path, clock, 10).state == "completed"


@pytest.mark.parametrize("minutes", [0, -1, True, "5", float("inf"), float("nan"), None])
def test_a_limit_that_is_not_a_number_above_0_is_refused(minutes: Any) -> None:
    with pytest.raises(ValueError, match=r"^minutes=.*: expected a number above 0"):
        TimeLimit(minutes)
