"""Tests of `OverfitOneBatch`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from loopwright import Checkpointing, TrainingLoop
from loopwright.callbacks import OverfitOneBatch
from loopwright.errors import CheckpointError
from tiny import batches, is_bitwise_equal, rows, trainer, weights


def test_training_equals_training_on_the_first_micro_batch_repeatedly() -> None:
    data = batches(4)
    overfit = trainer(TrainingLoop(num_steps=6), callbacks=[OverfitOneBatch()])
    overfit.fit(data)
    repeated = trainer(TrainingLoop(num_steps=6))
    repeated.fit([data[0]] * 6)
    assert is_bitwise_equal(weights(overfit), weights(repeated))


def test_validations_use_their_own_batches() -> None:
    data, val = batches(4), DataLoader(rows(8), batch_size=4)
    ours = trainer(TrainingLoop(num_steps=4, eval_frequency=2), callbacks=[OverfitOneBatch()])
    metrics = ours.fit(data, val).metrics
    assert metrics["val/loss"] == pytest.approx(ours.validate(val)["val/loss"])
    assert metrics["val/loss"] != pytest.approx(metrics["train/loss"])


@pytest.mark.parametrize(
    ("num_steps", "message"), [(2, "The model did not memorise one micro-batch"), (400, "The model memorised one")]
)
def test_the_result_is_logged(num_steps: int, message: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "loopwright")
    ours = trainer(TrainingLoop(num_steps=num_steps), callbacks=[OverfitOneBatch()])
    loss = ours.fit(batches(4)).metrics["train/loss"]
    assert (loss <= 0.01) == (num_steps == 400)
    assert message in caplog.text


def test_a_resume_is_refused_because_the_micro_batch_is_not_saved(tmp_path: Path) -> None:
    def make(max_steps: int, name: str) -> Any:
        settings = {"checkpoint": Checkpointing(), "run_dir": tmp_path / name}
        return trainer(TrainingLoop(max_steps=max_steps), callbacks=[OverfitOneBatch()], **settings)

    make(2, "begun").fit(batches(4))
    with pytest.raises(CheckpointError, match="start it again, or load only its weights with init_from"):
        make(4, "resumed").fit(batches(4), ckpt_path=tmp_path / "begun")
    assert make(4, "new").fit(batches(4), init_from=tmp_path / "begun").global_step == 4


@pytest.mark.parametrize("goal", [0, -1, "1", True, float("nan")])
def test_a_goal_that_is_not_a_number_above_0_is_refused(goal: Any) -> None:
    with pytest.raises(ValueError, match=r"^goal=.*: expected a number above 0"):
        OverfitOneBatch(goal)


def test_a_batch_may_be_a_tensor() -> None:
    def learn(batch: torch.Tensor) -> torch.Tensor:
        return batch.mean()

    class Model(torch.nn.Linear):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return learn(super().forward(batch).square())

    ours = trainer(TrainingLoop(num_steps=3), model=Model(2, 1), callbacks=[OverfitOneBatch()])
    assert ours.fit([torch.ones(2, 2), torch.zeros(2, 2)]).global_step == 3
