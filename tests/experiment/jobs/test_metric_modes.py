"""The modes of metrics are settled when a configuration is composed, and recorded."""

from __future__ import annotations

from typing import Any

import pytest

from loopwright.errors import SettingError
from loopwright.experiment.jobs.metric_modes import settle_modes


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
