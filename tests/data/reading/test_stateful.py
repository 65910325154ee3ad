"""Runs with other dataloaders are resumed bitwise, by the dataloader's state or by dropping batches."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

import tiny
from loopwright import Checkpointing, Trainer, TrainingLoop
from loopwright.errors import CheckpointError
from loopwright.seeding import SideStreams


class Plain:
    """Shuffles each pass with torch's generator, adds noise from all generators, and has no state to load."""

    def __init__(self, num_batches: int = 7, is_sized: bool = True, is_endless: bool = False) -> None:
        self.batches = tiny.batches(num_batches)
        self.num_read = 0
        self.is_endless = is_endless
        if is_sized:
            self.__class__ = type("Sized", (type(self),), {"__len__": lambda self: len(self.batches)})

    def order(self) -> list[int]:
        return torch.randperm(len(self.batches)).tolist()

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from map(self.noisy, self.order())
            if not self.is_endless:
                return

    def noisy(self, index: int) -> tuple[Tensor, Tensor]:
        self.num_read += 1
        features, target = self.batches[index]
        return features + torch.randn(4) + random.random() + float(numpy.random.rand()), target


class Stateful(Plain):
    """The same, but the remaining order is a state that can be loaded."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.left: list[int] = []

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            self.left = self.left or self.order()
            while self.left:
                yield self.noisy(self.left.pop(0))
            if not self.is_endless:
                return

    def state_dict(self) -> dict[str, Any]:
        return {"left": list(self.left)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.left = list(state["left"])


def fit(run_dir: Path, data: Any, ckpt_path: Path | None = None, seed: int = 0) -> Trainer:
    trainer = tiny.trainer(
        TrainingLoop(
            num_steps=10, grad_accum_steps=2, **({} if hasattr(data, "__len__") else {"eval_frequency": None})
        ),
        model=lambda: tiny.Regression(dropout=0.3),
        optimizer=tiny.adamw,
        checkpoint=Checkpointing(every_n_steps=1),
        run_dir=run_dir,
        seed=seed,
    )
    trainer.fit(data, ckpt_path=ckpt_path)
    return trainer


@pytest.mark.parametrize("is_stateful", [True, False])
@pytest.mark.parametrize("settings", [{}, {"is_sized": False}, {"is_sized": False, "is_endless": True}], ids=str)
def test_a_run_resumed_at_any_step_is_bitwise_equal(
    is_stateful: bool, settings: dict[str, bool], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make = Stateful if is_stateful else Plain
    straight = fit(tmp_path / "straight", make(**settings))
    for step in range(1, 11):
        data = make(**settings)
        caplog.clear()
        ckpt_path = tmp_path / f"straight/checkpoints/step_{step:08d}"
        resumed = fit(tmp_path / f"again_{step}", data, ckpt_path, seed=1 + step)
        assert tiny.is_bitwise_equal(tiny.weights(resumed), tiny.weights(straight)), step
        if is_stateful:
            num_left = straight.micro_batch_index
            assert "Read and dropped" not in caplog.text
            assert data.num_read <= 20 - 2 * step + step // 4 + num_left
        elif step == 1:
            assert "Read and dropped 2 micro-batches of the training dataloader" in caplog.text


def test_a_missing_or_unexpected_dataloader_state_is_refused(tmp_path: Path) -> None:
    fit(tmp_path / "stateful", Stateful())
    fit(tmp_path / "plain", Plain())
    with pytest.raises(CheckpointError, match="data: only the training dataloader of the saved run has a state"):
        fit(tmp_path / "other", Plain(), ckpt_path=tmp_path / "stateful")
    with pytest.raises(CheckpointError, match="data: only the training dataloader of this run has a state"):
        fit(tmp_path / "another", Stateful(), ckpt_path=tmp_path / "plain")


def test_the_error_for_an_unsupported_state_contains_its_path(tmp_path: Path) -> None:
    class Odd(Stateful):
        def state_dict(self) -> dict[str, Any]:
            return {"left": object()}

    with pytest.raises(ValueError, match=r"data\.dataloader\.left"):
        fit(tmp_path, Odd())


class Rows(IterableDataset[Any]):
    """An iterable data set of rows with noise, for torch's `DataLoader`."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for features, target in zip(*tiny.rows(28).tensors, strict=True):
            yield features + torch.randn(4), target


@pytest.mark.parametrize("num_workers", [0, 1])
def test_batches_of_an_iterable_data_set_are_dropped_also_with_workers(num_workers: int, tmp_path: Path) -> None:
    def data() -> DataLoader[Any]:
        return DataLoader(Rows(), batch_size=4, num_workers=num_workers)

    straight = fit(tmp_path / "straight", data())
    for step in (2, 5, 7):
        ckpt_path = tmp_path / f"straight/checkpoints/step_{step:08d}"
        assert tiny.is_bitwise_equal(
            tiny.weights(fit(tmp_path / f"again_{step}", data(), ckpt_path, seed=9)), tiny.weights(straight)
        )


def test_side_streams_continue_from_their_state() -> None:
    def draw() -> tuple[float, float, list[float]]:
        return random.gauss(), float(numpy.random.randn()), torch.randn(3).tolist()

    streams = SideStreams(5, is_continued=True)
    with streams:
        draw()
    state = streams.state_dict()
    with streams:
        expected = [draw() for _ in range(3)]
    again = SideStreams(99, is_continued=True)
    again.load_state_dict(state)
    with again:
        assert [draw() for _ in range(3)] == expected
