from __future__ import annotations

from typing import Any

import pytest

from loopwright.checkpoint import Checkpointing


def test_settings_are_shown_and_cannot_be_set() -> None:
    settings = Checkpointing(100, "val/accuracy", "max")
    assert (settings.every_n_steps, settings.monitor, settings.mode) == (100, "val/accuracy", "max")
    assert (Checkpointing().every_n_steps, Checkpointing().monitor, Checkpointing().mode) == (None, None, "min")
    for name in ("every_n_steps", "monitor", "mode"):
        with pytest.raises(AttributeError):
            setattr(settings, name, 1)


@pytest.mark.parametrize("value", [0, -1, True, 2.5, "5", float("nan")])
def test_every_n_steps_refuses_what_is_no_count(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^every_n_steps=.*: expected a whole number of steps, 1 or more, or null"):
        Checkpointing(every_n_steps=value)


@pytest.mark.parametrize("arguments", [{"mode": "best"}, {"mode": None}, {"monitor": ""}, {"monitor": 3}])
def test_monitor_and_mode_are_checked(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"^{next(iter(arguments))}=.*: expected "):
        Checkpointing(**arguments)
