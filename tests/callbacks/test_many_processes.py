"""Tests of the shipped callbacks in several processes that train one model. The processes are forked."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import tiny
from loopwright import Callback, Checkpointing, TrainingLoop
from loopwright.callbacks import (
    DataStall,
    DetectAnomaly,
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
    time_limit,
)
from loopwright.checkpoint import steps_in
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


class Uneven(IterableDataset[Any]):
    """Yields a number of rows that depends on the process."""

    def __init__(self, counts: tuple[int, ...]) -> None:
        self._count = counts[own_rank()]

    def __iter__(self) -> Iterator[Any]:
        return iter([tiny.rows(30)[10 * own_rank() + index] for index in range(self._count)])


def with_all(rank: int, counts: tuple[int, ...], run_dir: Path) -> tuple[dict[str, Tensor], tiny.Logged, list[str]]:
    """Train with all callbacks that do not change a run, and return what is left of it."""
    logged = tiny.Logged()
    ours = trainer(
        TrainingLoop(num_epochs=2, steps_per_epoch=2, grad_accum_steps=2, eval_frequency=3),
        callbacks=[
            StopOnNonFinite(every_step=True, skip=1),
            ExponentialMovingAverage(decay=0.5),
            TimeLimit(60),
            LearningRateMonitor(),
            GradientNorms(),
            Throughput(),
            Utilisation(peak_flops=1e12),
            Memory(),
            DataStall(),
            Profile(2, 1),
            Summary(),
            DetectAnomaly(),
        ],
        loggers=[logged],
        log_every_n_steps=1,
        checkpoint=Checkpointing(every_n_steps=2),
        run_dir=run_dir,
    )
    with ours:
        ours.fit(DataLoader(Uneven(counts), batch_size=2), Loader(tiny.rows(9), batch_size=4))
    return weights(ours), logged, sorted(file.name for file in run_dir.rglob("*.*") if file.is_file())


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("counts", [(6, 3), (0, 7), (7, 0)])
def test_all_callbacks_work_with_a_process_that_has_less_data_or_none(counts: tuple[int, int], tmp_path: Path) -> None:
    ours, others = on_ranks(2, with_all, counts, tmp_path)
    assert is_bitwise_equal(ours[0], others[0])
    assert not others[1].metrics and not others[1].timing and not others[1].texts
    steps = [*ours[1].metrics["train/loss"]]
    assert len(steps) >= 2 and "parameters" in ours[1].texts
    for name in ("lr", "train/gradient_norm", "train/gradient_norm/layers.0"):
        assert [*ours[1].metrics[name]] == steps
    for name in ("samples_per_second", "data_stall_fraction", "teraflops_per_second", "flops_utilisation_fraction"):
        assert [*ours[1].timing[f"train/{name}"]] == steps
    traces = {"steps_2_to_2.json", "steps_2_to_2.txt"} if counts[0] else set()
    assert {"model.txt", *traces} == {name for name in ours[2] if name.startswith(("model.txt", "steps_"))}


def ends_early(rank: int, run_dir: Path, how: str) -> tuple[str, int, int, float, Any]:
    """Stop by a metric, which a callback logs with another value in each process, or by the clock of process 1."""

    class Logs(Callback):
        def on_validate_end(self, trainer: Any, model: Any, loop: Any) -> None:
            trainer.log_metrics(**{"val/own": trainer.global_step if own_rank() else 1.0})

    settings: dict[str, Any] = {"callbacks": [Logs(), EarlyStopping("val/own", "min", patience=2)]}
    if how == "plateau":
        plateau = partial(torch.optim.lr_scheduler.ReduceLROnPlateau, patience=0, mode="max")
        settings = {"callbacks": [Logs()], "schedulers": {"scheduler": plateau, "monitor": "val/own"}}
    if how == "clock":
        times = iter(range(0, 10**6, 40 if rank else 1))
        time_limit.time = SimpleNamespace(monotonic=lambda: float(next(times)))  # type: ignore[attr-defined]
        settings = {"callbacks": [TimeLimit(10)]}
    checkpoint = Checkpointing() if how == "clock" else Checkpointing(monitor="val/own", mode="min")
    loop = TrainingLoop(num_steps=50 if how != "plateau" else 8, eval_frequency=2)
    ours = trainer(loop, checkpoint=checkpoint, run_dir=run_dir, **settings)
    state = ours.fit(Loader(tiny.rows(24), batch_size=4), Loader(tiny.rows(8), batch_size=4)).state
    assert ours.optimizer is not None
    return state, ours.global_step, max(steps_in(run_dir)), ours.optimizer.param_groups[0]["lr"], ours.best


@pytest.mark.parametrize("how", ["early", "plateau", "clock"])
def test_all_processes_decide_alike_by_the_values_of_process_0(how: str, tmp_path: Path) -> None:
    ours, others = on_ranks(2, ends_early, tmp_path, how)
    assert ours == others
    state, step, saved, rate, _ = ours
    assert step == saved
    if how == "early":
        assert (state, step) == ("stopped", 6)
    elif how == "plateau":
        assert rate == pytest.approx(0.05 * 0.1**3)
    else:
        assert state == "interrupted" and 0 < step < 15


def averaged(rank: int) -> tuple[dict[str, float], dict[str, Tensor]]:
    average = ExponentialMovingAverage(decay=0.7, every_n_steps=2)
    ours = trainer(TrainingLoop(num_steps=9), model=partial(tiny.Regression, torch.float64), callbacks=[average])
    metrics = ours.fit(Loader(tiny.rows(23, torch.float64), batch_size=5), Loader(tiny.rows(9, torch.float64))).metrics
    return dict(metrics), average.state_dict()["averaged_weights"]


def test_the_average_is_that_of_one_process() -> None:
    metrics, alone = averaged(0)
    for own_metrics, own in on_ranks(2, averaged):
        assert own_metrics == pytest.approx(metrics, rel=1e-10)
        assert tiny.largest_difference(own, alone) < 1e-12


def overfitted(rank: int) -> dict[str, Tensor]:
    ours = trainer(
        TrainingLoop(num_steps=5), model=partial(tiny.Regression, torch.float64), callbacks=[OverfitOneBatch()]
    )
    ours.fit(Loader(tiny.rows(16, torch.float64), batch_size=4, shuffle=True))
    return weights(ours)


def test_all_processes_repeat_their_rows_of_the_first_micro_batch() -> None:
    alone = overfitted(0)
    assert all(tiny.largest_difference(each, alone) < 1e-12 for each in on_ranks(2, overfitted))


def sums(rank: int) -> list[dict[str, float]]:
    own = trainer()
    values = {"a": 1.0 + rank, "infinite": math.inf} | ({"only": 5.0} if rank else {})
    return [own.sum_over_processes(values), own.max_over_processes(values)]


def test_values_are_summed_over_the_processes() -> None:
    for found in on_ranks(3, sums):
        assert found == [{"a": 6.0, "infinite": math.inf, "only": 10.0}, {"a": 3.0, "infinite": math.inf, "only": 5.0}]
    assert sums(0) == [{"a": 1.0, "infinite": math.inf}] * 2
