"""Tests of `LearningRateMonitor`."""

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


def test_the_rate_is_logged_at_log_steps_and_at_the_last_step() -> None:
    assert rates_of(TrainingLoop(num_steps=7), 3) == [(step, {"lr": 0.05}) for step in (3, 6, 7)]


def test_with_gradient_accumulation_the_rate_is_logged_once_per_step() -> None:
    seen = rates_of(TrainingLoop(num_steps=4, grad_accum_steps=3), 2)
    assert [step for step, _ in seen] == [2, 4]


def test_the_logged_rate_is_the_rate_of_this_step_and_not_of_the_next() -> None:
    seen = rates_of(TrainingLoop(num_steps=4), 1, schedulers=[warmup_cosine])
    expected = [0.05 * factor for factor in (1.0, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2)]
    assert [step for step, _ in seen] == [1, 2, 3, 4]
    torch.testing.assert_close([rates["lr"] for _, rates in seen], expected)


def test_the_names_of_several_parameter_groups_are_numbered() -> None:
    def two_groups(parameters: Any) -> torch.optim.SGD:
        first, *rest = parameters
        return torch.optim.SGD([{"params": [first], "lr": 0.1}, {"params": rest, "lr": 0.2}])

    assert rates_of(TrainingLoop(num_steps=1), 1, optimizer=two_groups) == [(1, {"lr/0": 0.1, "lr/1": 0.2})]


def test_a_rate_that_is_a_tensor_is_logged_as_a_number() -> None:
    sgd = functools.partial(torch.optim.SGD, lr=torch.tensor(0.5))
    ((_, rates),) = rates_of(TrainingLoop(num_steps=1), 1, optimizer=sgd)
    assert rates == {"lr": 0.5}
    assert type(rates["lr"]) is float


def test_the_rate_is_among_the_metrics_of_the_fit() -> None:
    ours = tiny.trainer(TrainingLoop(num_steps=3), callbacks=[LearningRateMonitor()])
    assert ours.fit(tiny.batches()).metrics["lr"] == 0.05
