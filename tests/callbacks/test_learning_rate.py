"""The learning-rate monitor: the rate with which each logged step was made."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch

import tiny
from loopwright import Logger, TrainingLoop
from loopwright.callbacks import LearningRateMonitor
from loopwright.optim import warmup_cosine


class Rates(Logger):
    def __init__(self) -> None:
        self.seen: list[tuple[int, dict[str, float]]] = []

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        rates = {name: value for name, value in metrics.items() if name.startswith("lr")}
        if rates:
            self.seen.append((step, rates))


def rates_of(loop: TrainingLoop, log_every_n_steps: int, **settings: Any) -> list[tuple[int, dict[str, float]]]:
    logger = Rates()
    trainer = tiny.trainer(
        loop,
        callbacks=[LearningRateMonitor()],
        loggers=[logger],
        log_every_n_steps=log_every_n_steps,
        **settings,
    )
    trainer.fit(tiny.batches())
    return logger.seen


def test_the_rate_is_logged_at_log_steps_and_the_last() -> None:
    assert rates_of(TrainingLoop(num_steps=7), 3) == [(step, {"lr": 0.05}) for step in (3, 6, 7)]


def test_it_is_logged_once_a_step_under_accumulation() -> None:
    seen = rates_of(TrainingLoop(num_steps=4, grad_accum_steps=3), 2)
    assert [step for step, _ in seen] == [2, 4]


def test_it_is_the_rate_that_the_step_used_not_the_next_ones() -> None:
    seen = rates_of(TrainingLoop(num_steps=4), 1, schedulers=[warmup_cosine])
    expected = [0.05 * factor for factor in (1.0, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2)]
    assert [step for step, _ in seen] == [1, 2, 3, 4]
    torch.testing.assert_close([rates["lr"] for _, rates in seen], expected)


def test_several_groups_are_numbered() -> None:
    def two_groups(parameters: Any) -> torch.optim.SGD:
        first, *rest = parameters
        return torch.optim.SGD([{"params": [first], "lr": 0.1}, {"params": rest, "lr": 0.2}])

    assert rates_of(TrainingLoop(num_steps=1), 1, optimizer=two_groups) == [(1, {"lr/0": 0.1, "lr/1": 0.2})]


def test_a_rate_that_is_a_tensor_is_logged_as_a_number() -> None:
    sgd = functools.partial(torch.optim.SGD, lr=torch.tensor(0.5))
    ((_, rates),) = rates_of(TrainingLoop(num_steps=1), 1, optimizer=sgd)
    assert rates == {"lr": 0.5}
    assert type(rates["lr"]) is float


def test_it_is_a_metric_of_the_run() -> None:
    ours = tiny.trainer(TrainingLoop(num_steps=3), callbacks=[LearningRateMonitor()])
    assert ours.fit(tiny.batches()).metrics["lr"] == 0.05
