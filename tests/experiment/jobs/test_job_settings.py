"""Settings of a configuration that are plain values."""

from __future__ import annotations

from typing import Any

import pytest

from loopwright.errors import SettingError
from loopwright.experiment.jobs.job_settings import at_callback_path, check_names, read_settings

CONFIG: dict[str, Any] = {
    **{section: {"_target_": "x"} for section in ("loop", "model", "data", "device", "optimizer")},
    "name": "run",
    "seed": 0,
    "ckpt_path": None,
    "ckpt_paths": None,
    "init_from": None,
    "objective": "val/loss",
    "objective_mode": "min",
    "deterministic": False,
    "log_every_n_steps": 50,
}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("name", value) for value in ("", "a/b", "..", ".", "a b", "a\n", "é", 3, None)),
        *(("seed", value) for value in (-1, 1.0, "0", True, 2**63)),
        *(("ckpt_path", value) for value in ("", 3, "a\x1bb", [])),
        *(("ckpt_paths", value) for value in ("", [], [3], 3, {"a": "b"})),
        *(("objective", value) for value in ("", None, 3)),
        *(("deterministic", value) for value in (None, 1, "true")),
        *(("log_every_n_steps", value) for value in (0, -1, 1.0, None, True, "5")),
        *(("max_restarts", value) for value in (-1, 1.0, None, True, "5")),
        *((section, None) for section in ("loop", "model", "data", "device", "optimizer")),
    ],
)
def test_values_that_are_refused_are_named(key: str, value: object) -> None:
    with pytest.raises(SettingError, match=f"^{key}"):
        read_settings({**CONFIG, key: value})


def test_settings_of_later_versions_may_be_missing() -> None:
    assert read_settings(CONFIG).max_restarts == 0
    assert read_settings({**CONFIG, "max_restarts": 3}).max_restarts == 3


@pytest.mark.parametrize("key", list(CONFIG))
def test_a_key_left_out_is_named(key: str) -> None:
    with pytest.raises(SettingError, match=f"^{key}: must be given"):
        read_settings({name: value for name, value in CONFIG.items() if name != key})


def test_the_ways_to_begin_exclude_each_other() -> None:
    with pytest.raises(SettingError, match="ckpt_path=null or init_from=null"):
        read_settings({**CONFIG, "ckpt_path": "a", "init_from": "b"})


def test_an_unused_name_is_refused_unless_an_interpolation_uses_it() -> None:
    with pytest.raises(SettingError, match=r"^sed: no such key; nothing reads it\. Did you mean seed\?"):
        check_names({**CONFIG, "sed": 3}, frozenset(), [])
    check_names({**CONFIG, "width": 3}, frozenset({"width"}), [])


def test_a_name_that_every_configuration_keeps_cannot_be_left_out() -> None:
    with pytest.raises(SettingError, match=r"^~optimizer\.lr: this name cannot be removed"):
        check_names(CONFIG, frozenset(), ["~optimizer.lr"])


def test_a_setting_of_a_callback_gets_its_path() -> None:
    config = {
        "callbacks": {"mine": {"_target_": "loopwright.callbacks.EarlyStopping", "monitor": "val/los"}, "no": None}
    }
    noted = SettingError("monitor", "=1: expected 2.")
    noted.add_note("Raised in callback mine.setup.")
    for error in (noted, SettingError("EarlyStopping.monitor", "=1: expected 2.")):
        assert str(at_callback_path(error, config)) == "callbacks.mine.monitor=1: expected 2."
    for error in (SettingError("monitor", "=1."), SettingError("EarlyStopping.other", "=1.")):
        assert at_callback_path(error, config) is error
