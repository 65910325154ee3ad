"""The settings of a sweep: each wrong value is refused with its path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from loopwright.errors import SettingError
from loopwright.experiment.sweep.settings import SweepSettings, read_sweep_settings
from loopwright.shipped import conf_dir

DEFAULT: dict[str, Any] = yaml.safe_load((Path(conf_dir()) / "sweep" / "default.yaml").read_text())
PATHS = [*DEFAULT, *(f"slurm.{name}" for name in DEFAULT["slurm"])]
ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4), st.just("auto")),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=3), inner, max_size=2)),
    max_leaves=4,
)


def with_value(path: str, value: Any) -> dict[str, Any]:
    """Return the shipped settings with another value."""
    section, _, name = path.rpartition(".")
    if section:
        return {**DEFAULT, "slurm": {**DEFAULT["slurm"], name: value}}
    return {**DEFAULT, name: value}


def test_the_file_has_the_defaults_of_the_class() -> None:
    recorded = [settings.as_json() for settings in (read_sweep_settings(DEFAULT), read_sweep_settings({}))]
    assert recorded[0] == DEFAULT
    assert recorded[1] == {**DEFAULT, "slurm": {**DEFAULT["slurm"], "setup": ()}}


@given(path=st.sampled_from(PATHS), value=ANYTHING)
def test_a_value_is_accepted_and_kept_or_refused_with_its_path(path: str, value: Any) -> None:
    try:
        settings = read_sweep_settings(with_value(path, value))
    except SettingError as error:
        names = [f"sweep.{path}", *(["sweep.num_proposals"] if path == "search" else [])]
        if not str(error).startswith(tuple(names)):
            raise
        return
    recorded = settings.as_json()
    assert read_sweep_settings(recorded).as_json() == recorded


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"launcher": "joblib"}, "sweep.launcher='joblib': expected auto, inline, process, slurm or none."),
        ({"launcher": "inlin"}, "expected auto, inline, process, slurm or none. Did you mean inline?"),
        ({"num_parallel": True}, "sweep.num_parallel=True: expected a whole number, 1 or more."),
        ({"num_parallel": 0}, "sweep.num_parallel=0: expected a whole number, 1 or more."),
        ({"timeout_minutes": "1"}, "sweep.timeout_minutes='1': expected a number above 0."),
        ({"grace_seconds": None}, "sweep.grace_seconds=null: expected a number above 0."),
        ({"devices": []}, "sweep.devices=[]: expected auto, or a list of devices such as [0, 1] or [[0, 1], [2, 3]]."),
        ({"devices": [0, True]}, "sweep.devices=[0, True]: expected auto, or a list of devices"),
        ({"columns": "val/loss"}, "sweep.columns='val/loss': expected a list of words."),
        ({"columns": None}, "sweep.columns=null: expected a list of words."),
        ({"baseline": 3}, "sweep.baseline=3: expected a list of words."),
        ({"space": [1]}, "sweep.space=[1]: expected a mapping of settings to values in the grammar of -m."),
        ({"search": "tpe"}, "sweep.num_proposals: expected a number of groups with search=tpe."),
        ({"num_proposals": 3}, "sweep.num_proposals=3: expected null with a grid; use search=random or search=tpe."),
        ({"nun_proposals": 3}, "sweep.nun_proposals: no such setting. Did you mean num_proposals?"),
        ({"slurm": {"gpu": 1}}, "sweep.slurm.gpu: no such setting. Did you mean gpus?"),
        ({"slurm": {"executor": "pbs"}}, "sweep.slurm.executor='pbs': expected slurm or local."),
        ({"slurm": {"setup": "module load"}}, "sweep.slurm.setup='module load': expected a list of shell commands."),
        (
            {"launcher": "inline", "num_parallel": 2},
            "sweep.num_parallel=2: expected 1 with launcher=inline; use sweep.launcher=process.",
        ),
        (
            {"launcher": "inline", "memory_gib": 2},
            "sweep.memory_gib=2: expected null with launcher=inline; use sweep.launcher=process.",
        ),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_accepted(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError) as caught:
        read_sweep_settings(changes)
    assert message in str(caught.value)


def test_settings_that_need_processes_are_not_run_inline() -> None:
    assert SweepSettings().can_run_inline
    for changes in ({"num_parallel": 2}, {"devices": [0]}, {"memory_gib": 1.0}, {"jobs_per_device": 2}):
        assert not read_sweep_settings(changes).can_run_inline
