"""Validation, logging, saving and workers do not change the trained weights, bitwise."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import faulty
from loopwright import Callback, Checkpointing, Trainer, TrainingLoop
from loopwright.data import Loader
from loopwright.loggers import JSONLinesLogger
from loopwright.seeding import RandomStreams
from tiny import NoisyRegression, Recorder, is_bitwise_equal, rows, trainer, weights

CADENCES = [None, 1, 7, 0.5]


class Drawing(Callback):
    """Draws random numbers from every stream during validations."""

    def on_validate_batch_end(
        self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any], batch: Any, batch_idx: int
    ) -> None:
        random.random()
        np.random.rand()
        torch.rand(1)


class Augmented(Dataset[Any]):
    """Adds noise from all three streams to each row."""

    def __init__(self) -> None:
        self.rows = rows(30)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        features, target = self.rows[index]
        noise = torch.rand(4) + random.random() + float(np.random.rand())
        return features + 0.1 * noise, target


def train(eval_frequency: float | None, loader: Any, **settings: Any) -> dict[str, Tensor]:
    ours = trainer(
        TrainingLoop(num_steps=14, eval_frequency=eval_frequency),
        model=lambda: NoisyRegression(dropout=0.3),
        callbacks=[Drawing()],
        **settings,
    )
    ours.fit(loader, DataLoader(rows(20), batch_size=8, shuffle=True))
    return weights(ours)


@pytest.mark.parametrize("data", ["tensors", "augmented"])
def test_weights_do_not_depend_on_validation_workers_or_the_loader_class(data: str) -> None:
    dataset: Any = rows(30) if data == "tensors" else Augmented()
    reference = train(None, Loader(dataset, batch_size=4, shuffle=True))
    for eval_frequency in CADENCES:
        assert is_bitwise_equal(train(eval_frequency, Loader(dataset, batch_size=4, shuffle=True)), reference)
        assert is_bitwise_equal(train(eval_frequency, DataLoader(dataset, batch_size=4, shuffle=True)), reference)
    for eval_frequency in (None, 7):
        ours = Loader(dataset, batch_size=4, shuffle=True, num_workers=2)
        theirs = DataLoader(dataset, batch_size=4, shuffle=True, num_workers=2)
        assert is_bitwise_equal(train(eval_frequency, ours), reference)
        assert is_bitwise_equal(train(eval_frequency, theirs), reference)


def test_validation_does_not_affect_a_subclass_of_torchs_dataloader() -> None:
    class Own(DataLoader[Any]):
        pass

    results = [train(eval_frequency, Own(Augmented(), batch_size=4, shuffle=True)) for eval_frequency in CADENCES]
    assert all(is_bitwise_equal(result, results[0]) for result in results)


def test_the_comparison_fails_if_validation_shares_the_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def not_swapped(self: RandomStreams, *key: int | str) -> Iterator[None]:
        yield

    monkeypatch.setattr(RandomStreams, "branch", not_swapped)
    loader = Loader(rows(30), batch_size=4, shuffle=True)
    assert not is_bitwise_equal(train(1, loader), train(None, loader))


@pytest.mark.parametrize("log_every_n_steps", [1, 10])
def test_weights_do_not_depend_on_logging_and_more_callbacks(log_every_n_steps: int) -> None:
    reference = train(None, Loader(rows(30), batch_size=4, shuffle=True))
    other = train(7, Loader(rows(30), batch_size=4, shuffle=True), log_every_n_steps=log_every_n_steps)
    assert is_bitwise_equal(other, reference)


@pytest.mark.parametrize("every_n_steps", [1, 7, None])
def test_weights_do_not_depend_on_saving(every_n_steps: int | None, tmp_path: Path) -> None:
    reference = train(None, Loader(Augmented(), batch_size=4, shuffle=True))
    saving: dict[str, Any] = {"checkpoint": Checkpointing(every_n_steps=every_n_steps), "run_dir": tmp_path}
    other = train(5, Loader(Augmented(), batch_size=4, shuffle=True), loggers=[JSONLinesLogger()], **saving)
    assert is_bitwise_equal(other, reference)


@pytest.mark.parametrize("prefetch_factor", [2, 8])
def test_weights_do_not_depend_on_prefetching(prefetch_factor: int) -> None:
    reference = train(None, Loader(Augmented(), batch_size=4, shuffle=True))
    ahead = DataLoader(Augmented(), batch_size=4, shuffle=True, num_workers=1, prefetch_factor=prefetch_factor)
    assert is_bitwise_equal(train(5, ahead), reference)


def test_the_callers_streams_are_restored_after_exceptions() -> None:
    def draws() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), torch.rand(1).item()

    def seed() -> None:
        random.seed(1), np.random.seed(1), torch.manual_seed(1)

    seed()
    expected = draws()
    seed()
    ours = trainer(TrainingLoop(num_steps=3), model=lambda: NoisyRegression(dropout=0.5))
    ours.fit(Loader(Augmented(), batch_size=4, shuffle=True), Loader(rows(20), batch_size=8))
    with pytest.raises(TypeError):
        ours.fit([None])
    ours.validate(Loader(Augmented(), batch_size=4, shuffle=True))
    assert draws() == expected


def test_a_second_fit_continues_the_streams_and_the_data() -> None:
    loader = Loader(Augmented(), batch_size=4, shuffle=True)
    straight = trainer(TrainingLoop(num_steps=14), model=lambda: NoisyRegression(dropout=0.3))
    straight.fit(loader)
    twice = trainer(TrainingLoop(num_steps=7), model=lambda: NoisyRegression(dropout=0.3))
    twice.fit(loader)
    torch.rand(5)
    assert twice.plan_fit(loader).window(7).first_micro_batch == 7
    twice.fit(loader)
    assert is_bitwise_equal(weights(twice), weights(straight))


def test_validation_results_repeat_and_do_not_depend_on_workers() -> None:
    ours = trainer(model=lambda: NoisyRegression())
    first = ours.validate(Loader(Augmented(), batch_size=8))
    assert ours.validate(Loader(Augmented(), batch_size=8)) == first
    assert ours.validate(Loader(Augmented(), batch_size=8, num_workers=2)) == first


def test_workers_live_for_a_fit_and_no_longer(num_workers_left: Callable[[], int]) -> None:
    during: list[int] = []
    count = Recorder(lambda *args: during.append(num_workers_left()))
    ours = trainer(TrainingLoop(num_steps=3), callbacks=[count])
    ours.fit(Loader(rows(30), batch_size=4, num_workers=2))
    assert during == [2, 2, 2]
    assert num_workers_left() == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["torch", "own", "stream"])
@pytest.mark.parametrize("persistent_workers", [False, True])
def test_workers_end_when_the_trainer_is_deleted(
    kind: str, persistent_workers: bool, num_workers_left: Callable[..., int]
) -> None:
    data = faulty.data(kind, num_workers=2, persistent_workers=persistent_workers).train
    trainer(TrainingLoop(num_steps=3), model=faulty.Model).fit(data)
    del data
    assert num_workers_left(is_collected=True) == 0


def test_validations_at_different_steps_draw_different_numbers() -> None:
    seen: dict[int, float] = {}

    class Noting(Callback):
        def on_validate_end(self, ours: Trainer, model: nn.Module, loop: Any) -> None:
            seen[ours.global_step] = ours.metrics["val/loss"]

    def still(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.0)

    loop = TrainingLoop(num_steps=3, eval_frequency=1)
    ours = trainer(loop, model=lambda: NoisyRegression(), optimizer=still, callbacks=[Noting()])
    ours.fit(Loader(rows(30), batch_size=4), Loader(rows(20), batch_size=8))
    assert len(set(seen.values())) == 3
    assert ours.validate(Loader(rows(20), batch_size=8))["val/loss"] == seen[3]
