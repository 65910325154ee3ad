"""Tests of the shipped callbacks in several processes that train one model. The processes are forked."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import tiny
from loopwright import Callback, Checkpointing, TrainingLoop
from loopwright.callbacks import (
    DataStall,
    EarlyStopping,
    ExponentialMovingAverage,
    GradientNorms,
    LearningRateMonitor,
    Memory,
    OverfitOneBatch,
    Profile,
    StopOnNonFinite,
    Summary,
    Throughput,
    TimeLimit,
    Utilisation,
)
from loopwright.callbacks import time_limit as time_limit_module
from loopwright.checkpoint import read_checkpoint
from loopwright.data import Loader
from ranked import on_ranks
from tiny import is_bitwise_equal, trainer, weights


def own_rank() -> int:
    """Return the rank of this process, also for a run that is alone."""
    return int(os.environ.get("RANK", "0"))


class Poisoned(tiny.Regression):
    """Returns the loss NaN for a row whose target is above 1,000, but gradients that are finite."""

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Any]:
        features, target = batch
        is_bad = target > 1000
        error = self.layers(features) - torch.where(is_bad, 0.0, target)
        loss = error.square().mean() + torch.where(is_bad.any(), math.nan, 0.0)
        return {"loss": loss, "num_items": len(target)}


def poisoned_rows(num_rows: int, *bad: int) -> TensorDataset:
    features, target = tiny.rows(num_rows).tensors
    target = target.clone()
    target[list(bad)] = 2000.0
    return TensorDataset(features, target)


def fit_poisoned(rank: int, bad: tuple[int, ...], skip: int) -> tuple[str, int, dict[str, Tensor], float]:
    stop = StopOnNonFinite(every_step=True, skip=skip)
    ours = trainer(TrainingLoop(num_steps=6, grad_accum_steps=2), model=Poisoned, callbacks=[stop])
    try:
        message = ours.fit(Loader(poisoned_rows(48, *bad), batch_size=4)).state
    except ArithmeticError as error:
        message = str(error)
    return message, ours.global_step, weights(ours), ours.metrics.get("train/skipped_updates", 0.0)


def test_a_loss_that_is_nan_in_one_process_stops_all_before_the_update() -> None:
    """Row 17 is in step 3, in a micro-batch of process 1."""
    found = on_ranks(2, fit_poisoned, (17,), 0)
    assert {message for message, *_ in found} == {found[0][0]}
    assert found[0][0].startswith("The loss of process 1 is nan in step 3 (learning rate 0.05). Last good")
    assert [step for _, step, _, _ in found] == [2, 2]
    assert is_bitwise_equal(found[0][2], found[1][2])


def test_every_process_skips_the_same_updates() -> None:
    found = on_ranks(2, fit_poisoned, (17, 40), 1)
    assert [(state, step, skipped) for state, step, _, skipped in found] == [("completed", 6, 2.0)] * 2
    assert is_bitwise_equal(found[0][2], found[1][2])
    too_many = on_ranks(2, fit_poisoned, (17, 24), 1)
    assert [step for _, step, _, _ in too_many] == [3, 3]
    assert all("2 steps in a row" in message for message, *_ in too_many)
    assert too_many[0][0].startswith("The loss of process 0 is nan in step 4")


class Masked(nn.Module):
    """Averages over the rows that are not masked. The loss of a batch without such rows is NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1, dtype=torch.float64)

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Any]:
        features, mask = batch
        errors = self.layer(features).square() * mask
        return {"loss": errors.sum() / mask.sum(), "num_items": int(mask.sum())}


def fit_masked(rank: int) -> dict[str, Tensor]:
    """The last micro-batch has two rows. The first row is masked, and a third process repeats this row."""
    mask = torch.ones(8, 1, dtype=torch.float64)
    mask[[1, 6]] = 0
    data = Loader(TensorDataset(tiny.rows(8, torch.float64).tensors[0], mask), batch_size=3)
    ours = trainer(TrainingLoop(num_epochs=2), model=Masked, callbacks=[StopOnNonFinite(every_step=True)])
    ours.fit(data)
    return weights(ours)


def test_a_process_without_items_neither_stops_the_run_nor_changes_its_gradient() -> None:
    alone = fit_masked(0)
    for world_size in (2, 3):
        for found in on_ranks(world_size, fit_masked):
            assert tiny.largest_difference(found, alone) < 1e-12


class Slow(tiny.Regression):
    """Each forward takes 2 seconds in training, and 100 seconds in validation. Each sample has 3 items."""

    def __init__(self, now: list[float]) -> None:
        super().__init__()
        self.now = now

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Any]:
        self.now[0] += 2.0 if self.training else 100.0
        return {**super().forward(batch), "num_items": 3 * len(batch[0])}


class Waits(Callback):
    """Makes each save, and the reading of process 1, take time."""

    def __init__(self, now: list[float]) -> None:
        self.now = now

    def on_save_checkpoint(self, trainer: Any, state_dict: dict[str, Any]) -> None:
        self.now[0] += 1000.0


class SlowRows(TensorDataset):
    """Reading a row takes half a second in process 1."""

    def __init__(self, now: list[float], num_rows: int) -> None:
        super().__init__(*tiny.rows(num_rows).tensors)
        self.now = now

    def __getitem__(self, index: Any) -> Any:
        self.now[0] += 0.5 * own_rank()
        return super().__getitem__(index)


def measured(rank: int, now: list[float], run_dir: Path, num_rows: int = 20) -> dict[str, dict[int, float]]:
    logged = tiny.Logged()
    ours = trainer(
        TrainingLoop(num_steps=4, grad_accum_steps=2, eval_frequency=2),
        model=lambda: Slow(now),
        callbacks=[Waits(now), Throughput(), DataStall(), Utilisation(peak_flops=1e9), Memory()],
        loggers=[logged],
        log_every_n_steps=2,
        checkpoint=Checkpointing(every_n_steps=1),
        run_dir=run_dir,
    )
    ours.fit(Loader(SlowRows(now, num_rows), batch_size=5, num_workers=0), tiny.batches(2))
    return logged.timing


def test_rates_count_all_processes_and_no_validation_or_save(now: list[float], tmp_path: Path) -> None:
    alone = measured(0, now, tmp_path / "alone")
    ours, others = on_ranks(2, measured, now, tmp_path / "ranks")
    assert not others
    assert alone["train/samples_per_second"] == ours["train/samples_per_second"] == {2: 2.5, 4: 2.5}
    assert ours["train/items_per_second"] == {2: 7.5, 4: 7.5}
    assert ours["train/steps_per_second"] == {2: 0.25, 4: 0.25}
    assert ours["train/teraflops_per_second"] == alone["train/teraflops_per_second"]
    for step, fraction in alone["train/flops_utilisation_fraction"].items():
        assert ours["train/flops_utilisation_fraction"][step] == pytest.approx(fraction / 2)
    assert alone["train/data_stall_fraction"] == {2: 0.0, 4: 0.0}
    assert ours["train/data_stall_fraction"] == {2: 1 / 3, 4: 1 / 3}  # 2 rows of half a second and 2 seconds
    assert all(value > 0 for value in ours["memory/peak_process_bytes"].values())
