"""Tests that an invalid saved state of a callback is refused when it is loaded, not later during training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tiny
from loopwright import TrainingLoop
from loopwright.callbacks import EarlyStopping, ExponentialMovingAverage, StopOnNonFinite
from loopwright.checkpoint import read_checkpoint, write_checkpoint
from loopwright.data import Loader
from loopwright.errors import CheckpointError


def build(**settings: Any) -> Any:
    callbacks = [ExponentialMovingAverage(**settings), EarlyStopping(patience=9), StopOnNonFinite()]
    return tiny.trainer(TrainingLoop(max_steps=4, eval_frequency=1), callbacks=callbacks)


def fit(trainer: Any, ckpt_path: Path | None = None) -> None:
    trainer.fit(tiny.batches(), Loader(tiny.rows(8), batch_size=4), ckpt_path=ckpt_path)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    trainer = build()
    fit(trainer)
    path: Path = trainer.save_checkpoint(tmp_path / "saved")
    return path


@pytest.mark.parametrize("value", ["abc", [], None, True])
@pytest.mark.parametrize(
    ("callback", "name"),
    [
        ("EarlyStopping", "best"),
        ("EarlyStopping", "last"),
        ("EarlyStopping", "last_step"),
        ("EarlyStopping", "num_not_better"),
        ("ExponentialMovingAverage", "num_updates"),
        ("ExponentialMovingAverage", "averaged_weights"),
        ("StopOnNonFinite", "num_skipped_in_a_row"),
    ],
)
def test_invalid_values_are_refused(callback: str, name: str, value: object, saved: Path) -> None:
    state = read_checkpoint(saved).state
    state["callbacks"][callback][name] = value
    write_checkpoint(saved.parent / "bad", state, step=4)
    with pytest.raises(CheckpointError, match=rf"{callback}: {name}.*expected"):
        fit(build(), saved.parent / "bad")


@pytest.mark.parametrize("path", ["EarlyStopping", "StopOnNonFinite", "ExponentialMovingAverage.averaged_weights"])
def test_additional_entries_are_refused(path: str, saved: Path) -> None:
    state = read_checkpoint(saved).state
    node = state["callbacks"]
    for name in path.split("."):
        node = node[name]
    node["more"] = 1.0
    write_checkpoint(saved.parent / "bad", state, step=4)
    with pytest.raises(CheckpointError, match=rf"{path.partition('.')[0]}: .*more.*; expected"):
        fit(build(), saved.parent / "bad")


def test_an_average_with_other_settings_is_refused(saved: Path) -> None:
    expected = r"has decay=0\.999, every_n_steps=1; expected decay=0\.5, every_n_steps=3, as set in this run; to start"
    with pytest.raises(CheckpointError, match=f"ExponentialMovingAverage: the checkpoint {expected} "):
        fit(build(decay=0.5, every_n_steps=3), saved)


def test_early_stopping_with_other_settings_is_refused() -> None:
    state = EarlyStopping(min_delta=0).state_dict()
    EarlyStopping(min_delta=0.0, patience=7).load_state_dict(state)
    with pytest.raises(CheckpointError, match=r"has min_delta=0; expected min_delta=0\.1, as set in this run"):
        EarlyStopping(min_delta=0.1).load_state_dict(state)
