"""The trial of the first validation batches before the first step of a fit, and the checks that follow from it."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, SequentialSampler, TensorDataset

import tiny
from loopwright import Callback, Checkpointing, Trainer, TrainingLoop, ValidationCallback
from loopwright.callbacks import EarlyStopping
from loopwright.data import Loader
from loopwright.errors import DataError, SettingError
from loopwright.loop import ValidationLoop


class Steps(Callback):
    """Counts the training steps, and the forwards in evaluation mode before the first of them."""

    def __init__(self) -> None:
        self.num_steps = 0

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.num_steps += 1


class Counting(tiny.Regression):
    """Counts its forwards in evaluation mode, in a list, which is not restored."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[Any] = []

    def forward(self, batch: Any) -> dict[str, Any]:
        if not self.training:
            self.batches.append(batch)
        return super().forward(batch)


class Tried(Callback):
    """Records the batches that the model sees in evaluation mode before the first step."""

    batches: list[Any]

    def on_train_start(self, trainer: Trainer, model: Any, *_: Any) -> None:
        self.batches = list(model.batches)


def tried(loader: Any, loop: TrainingLoop | None = None, callbacks: Any = ()) -> list[Any]:
    """Fit one step, and return the batches that the model sees in evaluation mode before it."""
    seen = Tried()
    with tiny.trainer(loop or TrainingLoop(num_steps=1), model=Counting, callbacks=[seen, *callbacks]) as trainer:
        trainer.fit(tiny.batches(), loader)
    return seen.batches


class BrokenInEvaluation(tiny.Regression):
    def forward(self, batch: Any) -> dict[str, Any]:
        if not self.training:
            raise RuntimeError("no evaluation")
        return super().forward(batch)


def test_an_error_of_the_model_in_evaluation_ends_the_fit_before_its_first_step() -> None:
    steps = Steps()
    with (
        tiny.trainer(model=BrokenInEvaluation, callbacks=[steps]) as trainer,
        pytest.raises(RuntimeError, match="no evaluation") as caught,
    ):
        trainer.fit(tiny.batches(), {"a": tiny.batches(1), "b": tiny.batches(1)})
    assert (steps.num_steps, trainer.global_step) == (0, 0)
    where = "on the first batch of val/a, before the first step"
    assert f"Raised in model BrokenInEvaluation {where}." in caught.value.__notes__
    assert trainer.validation_name is None and trainer.model.training


def test_an_error_of_any_set_ends_the_fit_before_its_first_step() -> None:
    class Unreadable(Dataset[Any]):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> Any:
            raise OSError("gone")

    steps = Steps()
    with tiny.trainer(callbacks=[steps]) as trainer, pytest.raises(DataError, match="gone"):
        trainer.fit(tiny.batches(), {"a": tiny.batches(1), "b": DataLoader(Unreadable(), batch_size=2)})
    assert steps.num_steps == 0


def test_unknown_numbers_of_items_are_asked_for_before_the_first_step() -> None:
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, batch: Any) -> Any:
            if isinstance(batch, list):
                return self.weight * torch.stack([each.mean() for each in batch]).mean()
            return self.weight * batch.mean()

    steps = Steps()
    with tiny.trainer(model=Mean, callbacks=[steps]) as trainer, pytest.raises(DataError, match="num_items"):
        trainer.fit([torch.ones(2, 3)], {"a": 2 * [[torch.ones(4, 4, 4), torch.ones(3, 4)]]})
    assert steps.num_steps == 0


@pytest.mark.parametrize("kind", ["list", "loader", "torch", "shuffled"])
def test_the_first_batch_of_a_set_that_can_be_sought_is_tried(kind: str) -> None:
    rows = tiny.rows(8)
    loaders = {
        "list": tiny.batches(2),
        "loader": Loader(rows, 4),
        "torch": DataLoader(rows, 4),
        "shuffled": DataLoader(rows, 4, shuffle=True),
    }
    (batch,) = tried(loaders[kind])
    assert len(batch[0]) == 4


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(tiny.rows(8))

    def __len__(self) -> int:
        return 8


class ReadOnce(TensorDataset):
    is_random = True


@pytest.mark.parametrize(
    "loader",
    [
        DataLoader(Stream(), 4),
        DataLoader(tiny.rows(8), 4, sampler=list(range(8))),
        DataLoader(ReadOnce(*tiny.rows(8).tensors), 4),
    ],
)
def test_sets_that_cannot_be_read_twice_are_not_tried(loader: Any) -> None:
    assert tried(loader) == []


def test_a_plain_sampler_of_the_data_set_itself_is_tried() -> None:
    rows = tiny.rows(8)
    assert len(tried(DataLoader(rows, 4, sampler=SequentialSampler(rows)))) == 1


class Changing(Callback):
    def on_before_forward(self, trainer: Trainer, model: Any, batch: Any, args: list[Any], kwargs: Any) -> None:
        args[0] = tuple(each * 1 for each in batch)


class Batch(Callback):
    def on_validate_batch_start(self, trainer: Trainer, *_: Any) -> None:
        pass


class Step(Callback):
    def on_validate_step_start(self, trainer: Trainer, *_: Any) -> None:
        pass


class Preparing(Callback):
    def on_validate_start(self, trainer: Trainer, *_: Any) -> None:
        pass


class Entering(Callback):
    def on_enter_validate(self, trainer: Trainer, *_: Any) -> None:
        pass


@pytest.mark.parametrize("kind", [Changing, Batch, Step, Preparing, Entering])
def test_nothing_is_tried_if_a_callback_can_change_the_batch_or_the_model(kind: type[Callback]) -> None:
    assert tried(tiny.batches(2), callbacks=[kind()]) == []


def test_nothing_is_tried_if_the_loop_predicts_itself() -> None:
    class Own(ValidationLoop):
        def predict(self, model: nn.Module, *args: Any, **kwargs: Any) -> Any:
            return model(*args, **kwargs)

    class OwnLoop(TrainingLoop):
        @property
        def val_loop(self) -> ValidationLoop:
            return Own()

    assert tried(tiny.batches(2), loop=OwnLoop(num_steps=1)) == []


def test_nothing_is_tried_without_a_validation_or_without_a_step() -> None:
    assert tried(tiny.batches(2), loop=TrainingLoop(num_steps=1, eval_frequency=None)) == []
    with tiny.trainer(TrainingLoop(max_steps=1), model=BrokenInEvaluation) as trainer:
        trainer.fit(tiny.batches())
        trainer.fit(tiny.batches(), tiny.batches(1))


class Stateful(nn.Module):
    """Draws, counts and remembers in evaluation mode too, in buffers and in attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))
        self.register_buffer("num_calls", torch.zeros(()))
        self.register_buffer("last", torch.zeros(()))
        self.hidden: Any = None

    def forward(self, batch: Any) -> dict[str, Any]:
        features, target = batch
        self.num_calls += 1
        self.last = features.mean().detach()
        noise = torch.rand(()) + random.random() + float(numpy.random.rand())
        before = 0 if self.hidden is None else self.hidden
        self.hidden = features.sum().detach()
        self.new = 1 if not hasattr(self, "new") else self.new + 1
        error = self.layers(features + 0.01 * noise) - target + 0.01 * before + 0.001 * self.num_calls + self.new
        return {"loss": error.square().mean()}


class Noisy(Dataset[Any]):
    """Draws random numbers for each sample, and records the processes that read."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        if self.folder is not None:
            (self.folder / str(os.getpid())).touch()
        return torch.rand(4) + index, torch.rand(1)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_weights_metrics_and_streams_are_those_without_the_trial(num_workers: int, tmp_path: Path) -> None:
    ends: list[Any] = []
    for callbacks in ([], [Step()]):
        loop = TrainingLoop(num_steps=4, eval_frequency=2)
        loader = DataLoader(Noisy(), 4, num_workers=num_workers)
        with tiny.trainer(loop, model=Stateful, callbacks=callbacks) as trainer:
            result = trainer.fit(DataLoader(Noisy(), 2), loader)
            folder = trainer.save_checkpoint(tmp_path / str(len(ends)))
            ends.append((result.metrics, (folder / "model.safetensors").read_bytes(), trainer.model.new))
    assert ends[0] == ends[1]


def test_a_set_that_workers_read_is_tried_in_a_worker(tmp_path: Path) -> None:
    """A file that the data set opens at its first read must not be inherited by the workers."""
    assert len(tried(DataLoader(Noisy(tmp_path), 4, num_workers=1))) == 1
    assert str(os.getpid()) not in os.listdir(tmp_path) and os.listdir(tmp_path)


def make(run_dir: Path, monitor: str | None, callbacks: Any = (), **settings: Any) -> Trainer:
    checkpoint = Checkpointing(monitor=monitor, mode="min")
    return tiny.trainer(callbacks=[Steps(), *callbacks], checkpoint=checkpoint, run_dir=run_dir, **settings)


SETS = {"web": tiny.batches(2), "books": tiny.batches(1)}
OF_SETS = "val/web/loss, val/web/error, val/books/loss, val/books/error, val/loss, val/error."


@pytest.mark.parametrize(
    ("monitor", "sets", "available"),
    [
        ("val/eror", tiny.batches(1), "val/loss, val/error. Did you mean val/error?"),
        ("val/eror", SETS, f"{OF_SETS} Did you mean val/error?"),
        ("val/web/acc", SETS, f"{OF_SETS} Did you mean val/web/loss?"),
    ],
)
def test_a_monitor_that_no_validation_logs_is_refused_before_the_first_step(
    monitor: str, sets: Any, available: str, tmp_path: Path
) -> None:
    class Quiet(tiny.Regression):
        """A model of the user, whose metrics are known only from its outputs."""

    with tiny.trainer(
        model=Quiet, checkpoint=Checkpointing(monitor=monitor, mode="min"), run_dir=tmp_path
    ) as trainer, pytest.raises(SettingError) as caught:  # fmt: skip
        trainer.fit(tiny.batches(), sets)
    assert str(caught.value) == f"checkpoint.monitor={monitor!r}: no such metric. Available: {available}"
    assert trainer.global_step == 0


def test_other_monitors_are_refused_before_the_first_step() -> None:
    plateau = {"scheduler": torch.optim.lr_scheduler.ReduceLROnPlateau, "monitor": "val/eror"}
    for settings in ({"schedulers": [plateau]}, {"callbacks": [EarlyStopping("val/eror", mode="min")]}):
        with tiny.trainer(**settings) as trainer, pytest.raises(SettingError, match="val/eror"):
            trainer.fit(tiny.batches(), tiny.batches(1))
        assert trainer.global_step == 0


class Score(Callback):
    def on_validate_end(self, trainer: Trainer, *_: Any) -> None:
        trainer.log_metrics(**{"val/score": 1.0})


def test_a_metric_that_a_callback_of_the_user_may_log_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with make(tmp_path, "val/score", [Score()]) as trainer:
        result = trainer.fit(tiny.batches(), tiny.batches(1))
    assert result.best is not None and result.best.name == "val/score"
    text = "checkpoint.monitor='val/score': no such metric. Available: val/loss, val/error."
    assert [text in record.getMessage() for record in caplog.records].count(True) == 1


def test_metrics_of_downstream_validations_and_of_sets_that_were_not_tried_are_accepted(tmp_path: Path) -> None:
    class Probe(ValidationCallback):
        def run_validation(self, trainer: Trainer, loop_idx: int | None, is_last: bool) -> None:
            trainer.log_metrics(**{"Probe/score": 1.0})

    with tiny.trainer(
        callbacks=[Probe()], checkpoint=Checkpointing(monitor="Probe/score", mode="min"), run_dir=tmp_path / "a"
    ) as trainer:
        trainer.fit(tiny.batches(), tiny.batches(1))
    sets = {"a": DataLoader(Stream(), 4), "b": tiny.batches(1)}
    with tiny.trainer(
        checkpoint=Checkpointing(monitor="val/a/unknown", mode="min"), run_dir=tmp_path / "b"
    ) as trainer, pytest.raises(SettingError, match="Available: val/a/loss"):  # fmt: skip
        trainer.fit(tiny.batches(), sets)
    assert trainer.global_step > 0  # found after the first validation, as the set was not tried


def test_state_that_the_first_step_creates_is_checked_after_it(tmp_path: Path) -> None:
    class Remembering(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            result = super().step(closure)
            for group in self.param_groups:
                for parameter in group["params"]:
                    self.state[parameter]["seen"] = object()
            return result

    steps = Steps()
    with tiny.trainer(
        optimizer=lambda parameters: Remembering(parameters, lr=0.1),
        callbacks=[steps],
        checkpoint=Checkpointing(),
        run_dir=tmp_path,
    ) as trainer, pytest.raises(SettingError, match=r"optimizer\.state"):  # fmt: skip
        trainer.fit(tiny.batches(), tiny.batches(1))
    assert steps.num_steps == 1
