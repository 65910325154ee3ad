"""The norm of the gradients, which is logged at log steps where gradients are clipped by their norm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from loopwright import Callback, Logger, Precision, TrainingLoop
from tiny import ReadBacks, Regression, batches, trainer


class Collecting(Logger):
    def __init__(self) -> None:
        self.norms: dict[int, float] = {}

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        if "train/gradient_norm" in metrics:
            self.norms[step] = metrics["train/gradient_norm"]


def logged(precision: Precision | None, *callbacks: Callback, every: int = 1, **loop: Any) -> dict[int, float]:
    collecting = Collecting()
    settings = TrainingLoop(**{"num_steps": 4, **loop})
    with trainer(
        settings, precision=precision, callbacks=callbacks, loggers=[collecting], log_every_n_steps=every
    ) as ours:
        ours.fit(batches())
    return collecting.norms


def norms_by_hand(limit: float, num_steps: int, accum: int) -> dict[int, float]:
    model = trainer().model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    found: dict[int, float] = {}
    for step in range(num_steps):
        optimizer.zero_grad()
        for batch in batches()[step * accum : (step + 1) * accum]:
            (model(batch)["loss"] / accum).backward()
        found[step + 1] = float(torch.nn.utils.clip_grad_norm_(model.parameters(), limit))
        optimizer.step()
    return found


@pytest.mark.parametrize("accum", [1, 2])
def test_the_norm_before_the_clipping_is_logged(accum: int) -> None:
    norms = logged(Precision(max_gradient_norm=0.1), grad_accum_steps=accum)
    assert norms == pytest.approx(norms_by_hand(0.1, 4, accum))
    assert min(norms.values()) > 0.1


def test_it_is_logged_at_log_steps_only() -> None:
    assert [*logged(Precision(max_gradient_norm=0.1), every=3)] == [3, 4]


@pytest.mark.parametrize("precision", [None, Precision(max_gradient_value=0.1)])
def test_nothing_is_logged_where_no_norm_is_limited(precision: Precision | None) -> None:
    assert logged(precision) == {}


def test_a_skipped_step_has_no_norm() -> None:
    class Skipping(Callback):
        def on_before_optimizer_step(self, ours: Any, *_: Any) -> None:
            if ours.global_step == 1:
                ours.skip_update()

    assert [*logged(Precision(max_gradient_norm=0.1), Skipping())] == [1, 3, 4]


def test_a_metric_of_the_model_with_the_same_name_is_kept() -> None:
    class Own(Regression):
        def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
            return {**super().forward(batch), "gradient_norm": torch.tensor(7.0)}

    collecting = Collecting()
    precision = Precision(max_gradient_norm=0.1)
    trainer(model=Own, precision=precision, loggers=[collecting], log_every_n_steps=5).fit(batches())
    assert collecting.norms == {5: 7.0}


def test_the_norm_is_not_read_between_log_steps() -> None:
    counts: dict[int, int] = {}

    class Watching(Callback):
        def on_train_batch_end(self, ours: Any, *args: Any) -> None:
            counts[ours.global_step] = mode.count

    ours = trainer(
        TrainingLoop(num_steps=8),
        precision=Precision(max_gradient_norm=0.1),
        callbacks=[Watching()],
        log_every_n_steps=4,
    )
    with ReadBacks() as mode:
        ours.fit(batches())
    assert counts[3] == 0 and counts[7] == counts[4]
