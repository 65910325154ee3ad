"""The metric log: which value is the best, which best has a checkpoint, and what is collected."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from loopwright.engine.metric_log import MetricLog
from loopwright.run_state import Best


def log_of(*values: float, monitor: str | None = "val/loss", mode: str = "min") -> MetricLog:
    """A log of a fit in which the monitored metric had ``values`` at steps 1, 2, …"""
    log = MetricLog(monitor, mode)
    log.keeps_best = True
    for step, value in enumerate(values, 1):
        log.log({"val/loss": value}, step)
    return log


def best_step(log: MetricLog) -> int | None:
    return None if log.best is None else log.best.step


@pytest.mark.parametrize(
    ("values", "mode", "step"),
    [
        ((3.0, 1.0, 2.0), "min", 2),
        ((3.0, 1.0, 2.0), "max", 1),
        ((1.0, 1.0), "min", 1),
        ((1.0, 1.0), "max", 1),
        ((float("nan"), 2.0), "min", 2),
        ((2.0, float("nan")), "max", 1),
        ((float("nan"),), "min", None),
    ],
)
def test_the_best_is_the_first_of_equals_and_never_nan(values: tuple[float, ...], mode: str, step: int | None) -> None:
    """Catches a best that moves to a later equal value, and a NaN that no later value is better than."""
    assert best_step(log_of(*values, mode=mode)) == step


@pytest.mark.parametrize(
    ("val_sets", "monitored"),
    [(["val"], "val/loss"), (["val/a"], "val/loss"), (["val/a", "val/b"], "val/loss"), ([], None)],
)
def test_without_a_monitor_the_loss_of_the_validation_is_monitored(val_sets: list[str], monitored: str | None) -> None:
    """Catches a training loss that is taken for a validation's, and a monitor that changes between validations."""
    log = log_of(monitor=None)
    log.set_default_monitor(val_sets)
    log.log(dict.fromkeys(["train/loss", "val/a/loss", "val/b/loss", "val/loss", "val/losses"], 1.0), 1)
    log.set_default_monitor(["val/c"])
    log.log(dict.fromkeys(["val/c/loss", "val/loss", "val/a/loss"], 0.5), 2)
    assert (None if log.best is None else log.best.name) == (monitored or "val/loss")


def test_a_validation_outside_a_fit_is_never_the_best() -> None:
    """Catches a best of weights that were validated by hand."""
    log = log_of(3.0)
    log.keeps_best = False
    log.log({"val/loss": 1.0}, 1)
    assert (best_step(log), log.latest["val/loss"]) == (1, 1.0)
    assert log.best == Best(name="val/loss", value=3.0, step=1)


@pytest.mark.parametrize("is_saved_first", [True, False])
def test_a_step_counts_as_saved_before_and_after_its_validation(is_saved_first: bool) -> None:
    """Catches a best checkpoint that is missed because the save came first, or came last."""
    log = log_of(3.0)
    if is_saved_first:
        log.note_saved(2)
    log.log({"val/loss": 2.0}, 2)
    if not is_saved_first:
        log.note_saved(2)
    log.log({"val/loss": 1.0}, 3)
    assert log.best_saved == Best(name="val/loss", value=2.0, step=2)
    assert best_step(log) == 3


def test_a_checkpoint_that_was_not_written_is_not_the_best_saved() -> None:
    """Catches a `ckpt_path="best"` that points to a save that failed in the background."""
    log = log_of(3.0)
    log.note_saved(1)
    before = log.best_saved
    log.log({"val/loss": 2.0}, 2)
    log.note_saved(2)
    log.note_lost(2, before)
    assert log.best_saved == before
    log.log({"val/loss": 1.0}, 2)
    assert log.best_saved == before


def test_collecting_sees_what_is_logged_inside_it_alone() -> None:
    """Catches metrics of a validation inside another that are missing from the outer one's result."""
    log = log_of()
    log.log({"before": 1.0}, 1)
    with log.collecting() as outer:
        with log.collecting() as inner:
            log.log({"a": torch.tensor(2.0)}, 1)
        log.log({"b": 3.0}, 1)
    assert (outer, inner) == ({"a": 2.0, "b": 3.0}, {"a": 2.0})


def test_every_logger_is_given_floats() -> None:
    """Catches tensors that reach a logger, which would wait for the device again."""
    told: list[Any] = []
    log = MetricLog()
    log.connect((lambda *args: told.append(args),) * 2, (lambda *args: told.append(args),))
    assert log.log({"a": torch.tensor(1.5), "b": 2}, 7) == {"a": 1.5, "b": 2.0}
    log.log_timing({"seconds": 0.5}, 7)
    assert told == [({"a": 1.5, "b": 2.0}, 7)] * 2 + [({"seconds": 0.5}, 7)]
    assert all(type(value) is float for value in told[0][0].values())


def test_the_state_goes_round_and_keeps_the_metric_that_was_chosen() -> None:
    """Catches a resumed run that monitors another metric than before."""
    log = log_of(3.0, 1.0, 2.0)
    log.note_saved(3)
    again = log_of(monitor=None)
    again.load_state_dict(log.state_dict())
    assert again.state_dict() == log.state_dict()
    again.log({"val/a/loss": 0.0, "val/loss": 0.5}, 4)
    assert again.best == Best(name="val/loss", value=0.5, step=4)


@pytest.mark.parametrize(
    "change",
    [
        {"latest": {"val/loss": "low"}},
        {"last": {"name": 3, "value": 0.1, "step": 1}},
        {"best": {"name": "val/loss", "value": 0.1, "step": -1}},
        {"best_saved": {"name": "val/loss", "value": 0.1, "step": True}},
    ],
)
def test_a_state_of_other_types_is_refused_and_changes_nothing(change: dict[str, Any]) -> None:
    """Catches a damaged state that is found only when the next value is compared."""
    log = log_of(3.0)
    before = log.state_dict()
    with pytest.raises(ValueError, match="expected"):
        log.load_state_dict(before | change)
    assert log.state_dict() == before


@pytest.mark.parametrize(("monitor", "mode"), [("val/accuracy", "max"), ("val/error", "min")])
def test_without_a_monitor_the_name_and_the_mode_of_the_checkpoint_are_kept(monitor: str, mode: str) -> None:
    """Catches a resume that keeps the worst checkpoint, because it takes over the name without the mode."""
    saved = MetricLog(monitor, mode)
    saved.keeps_best = True
    for value, resumed in ((0.5, MetricLog()), (0.6, MetricLog(None, "min"))):
        resumed.load_state_dict(saved.state_dict())  # before and after the first value
        resumed.set_default_monitor(["val"])
        resumed.keeps_best = True
        for step, later in enumerate((0.7, 0.2), 10):
            resumed.log({monitor: later, "val/loss": 0.0}, step)
        expected = max if mode == "max" else min
        assert resumed.best is not None and resumed.best.name == monitor
        assert resumed.best.value == expected([0.7, 0.2] if saved.best is None else [0.5, 0.7, 0.2])
        saved.log({monitor: value}, 1)


@pytest.mark.parametrize("change", [{"mode": "maximum"}, {"mode": 1}, {"monitor": 3}])
def test_a_saved_monitor_that_is_none_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="the name and the mode of the monitored metric"):
        MetricLog().load_state_dict(log_of(1.0).state_dict() | change)
