"""The modes of metrics are settled when a configuration is composed, and recorded."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from loopwright.errors import SettingError
from loopwright.experiment.jobs.metric_modes import settle_changed_modes, settle_modes


def config(objective: str, mode: str | None, monitor: str, own_mode: str | None = None) -> dict[str, Any]:
    """A configuration with an objective, and three nodes that monitor one metric."""
    plateau = {"_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau", "mode": own_mode}
    stopping = {"_target_": "loopwright.callbacks.EarlyStopping", "monitor": monitor, "mode": own_mode}
    return {
        "objective": objective,
        "objective_mode": mode,
        "checkpoint": {"_target_": "loopwright.checkpoint.Checkpointing", "monitor": monitor, "mode": own_mode},
        "scheduler": {"scheduler": plateau, "monitor": monitor},
        "callbacks": {
            "early_stopping": stopping,
            "own": {"_target_": "own.Callback", "monitor": monitor, "mode": None},
        },
    }


def modes(settled: dict[str, Any]) -> list[Any]:
    callbacks = settled["callbacks"]
    nodes = [settled["checkpoint"], settled["scheduler"]["scheduler"], callbacks["early_stopping"], callbacks["own"]]
    return [settled["objective_mode"], *(node["mode"] for node in nodes)]


def test_the_mode_follows_from_the_objective_or_from_the_name() -> None:
    assert modes(settle_modes(config("val/loss", None, "val/loss"))) == ["min"] * 4 + [None]
    assert modes(settle_modes(config("val/accuracy", "max", "val/accuracy"))) == ["max"] * 4 + [None]
    assert modes(settle_modes(config("val/loss", "max", "val/loss"))) == ["max"] * 4 + [None]
    assert modes(settle_modes(config("val/accuracy", "max", "val/loss"))) == ["max", *["min"] * 3, None]
    assert modes(settle_modes(config("val/loss", None, "val/accuracy", "max"))) == ["min", *["max"] * 3, None]


def test_a_mode_that_does_not_follow_is_asked_for_by_its_setting() -> None:
    with pytest.raises(SettingError, match=r"^objective_mode: expected max or min, as val/accuracy may be"):
        settle_modes(config("val/accuracy", None, "val/accuracy"))
    for section in ("checkpoint", "scheduler", "callbacks"):
        given = config("val/loss", None, "val/accuracy")
        alone = {name: given[name] for name in ("objective", "objective_mode", section)}
        path = {"checkpoint": "", "scheduler": ".scheduler", "callbacks": ".early_stopping"}[section]
        with pytest.raises(SettingError, match=rf"^{section}{path}\.mode: expected max or min"):
            settle_modes(alone)


def test_a_configuration_is_not_changed_in_place() -> None:
    given = config("val/loss", None, "val/loss")
    settle_modes(given)
    assert modes(given) == [None] * 5


@pytest.mark.parametrize(
    ("recorded", "typed", "expected"),
    [
        # A corrected name keeps the mode, and moves the monitor of the checkpoints.
        (("val/acc", "max"), {"objective": "val/accuracy"}, ("val/accuracy", "max", "val/accuracy", "max")),
        (("val/los", "min"), {"objective": "val/loss"}, ("val/loss", "min", "val/loss", "min")),
        (("val/acc", "max"), {"objective": "val/loss"}, ("val/loss", "min", "val/loss", "min")),
        (
            ("val/loss", "min"),
            {"objective": "val/accuracy", "objective_mode": "max"},
            ("val/accuracy", "max", "val/accuracy", "max"),
        ),
        (("val/acc", "min"), {"objective_mode": "max"}, ("val/acc", "max", "val/acc", "max")),
        (("val/acc", "max"), {"checkpoint.monitor": "val/loss"}, ("val/acc", "max", "val/loss", "min")),
        (("val/acc", "max"), {"checkpoint.mode": "min"}, ("val/acc", "max", "val/acc", "min")),
        (
            ("val/loss", "min"),
            {"objective": "val/square_error", "checkpoint.monitor": "val/loss"},
            ("val/square_error", "min", "val/loss", "min"),
        ),
    ],
)
def test_a_resume_settles_what_was_typed(
    recorded: tuple[str, str], typed: dict[str, str], expected: tuple[str, ...]
) -> None:
    before = settle_modes(config(*recorded, recorded[0]))
    stopping, schedule = before["callbacks"], before["scheduler"]
    after = settle_changed_modes(changed(before, typed), before, typed)
    names = after["objective"], after["objective_mode"], after["checkpoint"]["monitor"], after["checkpoint"]["mode"]
    assert names == expected
    assert (after["callbacks"], after["scheduler"]) == (stopping, schedule)  # would change what is trained


def changed(recorded: dict[str, Any], typed: dict[str, str]) -> dict[str, Any]:
    after = copy.deepcopy(recorded)
    for name, value in typed.items():
        *section, key = name.split(".")
        (after[section[0]] if section else after)[key] = value
    return after


def test_a_resume_keeps_a_monitor_that_was_not_the_objective() -> None:
    before = settle_modes(config("val/acc", "max", "val/loss"))
    after = settle_changed_modes(before | {"objective": "val/accuracy"}, before, {"objective"})
    assert after["checkpoint"] == before["checkpoint"]


@pytest.mark.parametrize(
    ("setting", "named"), [("objective", "objective_mode"), ("checkpoint.monitor", "checkpoint.mode")]
)
def test_a_resume_asks_for_a_mode_that_the_recorded_one_does_not_show(setting: str, named: str) -> None:
    """Catches an accuracy that is minimised because the loss before it was."""
    before = settle_modes(config("val/loss", None, "val/loss"))
    typed = {setting: "val/accuracy"}
    with pytest.raises(SettingError, match=rf"^{named}: expected max or min, as val/accuracy may be"):
        settle_changed_modes(changed(before, typed), before, typed)
