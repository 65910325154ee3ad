"""Schedulers step once per optimizer step, and receive the length of the plan or a metric."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader

from loopwright import TrainingLoop
from loopwright.errors import SettingError
from loopwright.optim import warmup_cosine
from tiny import Recorder, batches, rows, trainer


def rates(**settings: Any) -> list[float]:
    seen: list[float] = []
    record = Recorder(lambda trainer, batch, batch_idx: seen.append(trainer.optimizer.param_groups[0]["lr"]))
    loop = settings.pop("loop", TrainingLoop(num_steps=4, grad_accum_steps=2, eval_frequency=1))
    optimizer = functools.partial(torch.optim.SGD, lr=1.0)
    ours = trainer(loop, callbacks=[record], optimizer=optimizer, log_every_n_steps=1, **settings)
    ours.fit(batches(8), DataLoader(rows(4)))
    return seen


def test_a_scheduler_is_stepped_once_per_step_and_not_per_micro_batch() -> None:
    halving = rates(schedulers=[lambda optimizer: LambdaLR(optimizer, lambda step: 0.5**step)])
    assert halving == [1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125, 0.0625]


def test_a_scheduler_with_total_steps_receives_the_steps_of_the_plan() -> None:
    told: list[int] = []

    def make(optimizer: Any, total_steps: int) -> Any:
        told.append(total_steps)
        return OneCycleLR(optimizer, max_lr=1.0, total_steps=total_steps)

    rates(schedulers=[make])
    rates(schedulers=[functools.partial(OneCycleLR, max_lr=1.0)])
    rates(schedulers=functools.partial(OneCycleLR, max_lr=1.0, total_steps=77))
    assert told == [4]


def test_warmup_cosine_ends_where_the_plan_ends() -> None:
    seen = rates(schedulers=[functools.partial(warmup_cosine, warmup_steps=1)])
    assert seen[-1] == pytest.approx(0.0, abs=1e-9) and max(seen) == pytest.approx(1.0)


def test_a_monitored_scheduler_needs_validations() -> None:
    with pytest.raises(SettingError, match="this fit has no validations"):
        rates(
            schedulers=[{"scheduler": ReduceLROnPlateau, "monitor": "val/loss"}],
            loop=TrainingLoop(num_steps=2, eval_frequency=None),
        )


def test_an_interval_of_a_scheduler_is_refused_with_the_way_to_count_epochs() -> None:
    with pytest.raises(SettingError) as caught:
        rates(schedulers=[{"scheduler": functools.partial(StepLR, step_size=1), "interval": "epoch"}])
    remedy = "schedulers are stepped after each step; loopwright.optim accepts lengths such as '2 epochs'."
    assert str(caught.value).endswith(f"mappings with scheduler and monitor; {remedy}")


def test_a_later_fit_keeps_the_schedulers() -> None:
    ours = trainer(TrainingLoop(num_steps=2), schedulers=[functools.partial(StepLR, step_size=1, gamma=0.5)])
    assert ours.schedulers == []
    ours.fit(batches(4))
    first = ours.schedulers[0]
    ours.fit(batches(4))
    assert ours.schedulers == [first]
    assert ours.optimizer is not None and ours.optimizer.param_groups[0]["lr"] == pytest.approx(0.05 / 16)
