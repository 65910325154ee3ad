"""Tests of `Profile`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tiny
from loopwright import TrainingLoop
from loopwright.callbacks import Profile
from loopwright.errors import SettingError


def test_the_steps_are_recorded_in_a_trace_and_a_table(tmp_path: Path) -> None:
    ours = tiny.trainer(
        TrainingLoop(num_steps=6, grad_accum_steps=2), callbacks=[Profile(3, 2)], run_dir=tmp_path / "run"
    )
    ours.fit(tiny.batches(12))
    folder = tmp_path / "run" / "profile"
    assert sorted(file.name for file in folder.iterdir()) == ["steps_3_to_4.json", "steps_3_to_4.txt"]
    events = json.loads((folder / "steps_3_to_4.json").read_text())["traceEvents"]
    assert sum(event.get("name", "").startswith("Optimizer.step") for event in events) == 2
    assert sum(event.get("name") == "aten::addmm" for event in events) == 2 * 2 * 2  # two layers, micro-batches, steps
    assert "aten::addmm" in (folder / "steps_3_to_4.txt").read_text()


def test_a_fit_that_ends_earlier_writes_what_was_recorded(tmp_path: Path) -> None:
    tiny.trainer(TrainingLoop(num_steps=3), callbacks=[Profile(3, 5)], run_dir=tmp_path).fit(tiny.batches())
    assert (tmp_path / "profile" / "steps_3_to_3.json").is_file()


def test_a_fit_without_the_step_gets_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tiny.trainer(TrainingLoop(num_steps=3), callbacks=[Profile(4)], run_dir=tmp_path).fit(tiny.batches())
    assert "Profile: no step was recorded, because this fit did not train step 4" in caplog.text
    assert not (tmp_path / "profile").exists()


def test_after_an_exception_another_fit_can_record(tmp_path: Path) -> None:
    def fail(trainer: Any, *_: Any) -> None:
        if trainer.global_step == 2:
            raise KeyError("stop")

    with pytest.raises(KeyError):
        tiny.trainer(callbacks=[Profile(2, 3), tiny.Recorder(fail)], run_dir=tmp_path / "a").fit(tiny.batches())
    assert not (tmp_path / "a" / "profile").exists()
    tiny.trainer(TrainingLoop(num_steps=2), callbacks=[Profile(2, 1)], run_dir=tmp_path / "b").fit(tiny.batches())
    assert (tmp_path / "b" / "profile" / "steps_2_to_2.txt").is_file()


def test_it_needs_a_run_directory_and_positive_numbers() -> None:
    with pytest.raises(SettingError, match="run_dir=null: expected a directory"):
        tiny.trainer(callbacks=[Profile()])
    with pytest.raises(SettingError, match="num_steps=0"):
        Profile(num_steps=0)
