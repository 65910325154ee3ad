"""State of schedulers, callbacks and loaders: NumPy values resume bitwise, other values are refused early."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from loopwright import Callback, Checkpointing, TrainingLoop
from loopwright.errors import SettingError
from tiny import adamw, batches, is_bitwise_equal, trainer, weights


class Counting(Callback):
    """Counts steps and sums losses in NumPy types, and learns at a rate that depends on both."""

    def __init__(self) -> None:
        self.num_steps, self.sums = np.int64(0), np.zeros((2, 3), np.float32, order="F")

    def on_train_batch_end(self, ours: Any, model: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.num_steps += 1
        self.sums += outputs["loss"].detach().numpy()
        ours.optimizer.param_groups[0]["weight_decay"] = self.sums.mean() * np.float32(0.01)

    def state_dict(self) -> dict[str, Any]:
        return {"num_steps": self.num_steps, "sums": self.sums}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.num_steps, self.sums = state_dict["num_steps"], state_dict["sums"]


class Order:
    """A loader whose state is the order of its batches, as an array, and the number of batches read."""

    def __init__(self, order: Any = None) -> None:
        self.order = np.array([3, 0, 2, 1, 5, 4]) if order is None else order
        self.num_read = np.int32(0)

    def __len__(self) -> int:
        return 6

    def __iter__(self) -> Iterator[Any]:
        data = batches(6)
        while self.num_read < 6:
            self.num_read += np.int32(1)
            yield data[self.order[self.num_read - 1]]
        self.num_read = np.int32(0)

    def state_dict(self) -> dict[str, Any]:
        return {"order": self.order, "num_read": self.num_read}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.order, self.num_read = state_dict["order"], state_dict["num_read"]


def halving(optimizer: Any) -> Any:
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: np.float32(0.9) ** step)


def test_numpy_values_in_schedules_callbacks_and_loaders_are_saved_and_resumed_bitwise(tmp_path: Path) -> None:
    def run(max_steps: int, **start: Any) -> tuple[Any, Counting]:
        counting = Counting()
        settings: dict[str, Any] = {"schedulers": [halving], "callbacks": [counting], "optimizer": adamw}
        saves: dict[str, Any] = {
            "checkpoint": Checkpointing(),
            "run_dir": tmp_path / f"{max_steps}{'_resumed' if start else ''}",
        }
        ours = trainer(TrainingLoop(max_steps=max_steps), **settings, **saves)
        ours.fit(Order(), **start)
        return ours, counting

    run(4)
    straight, counted = run(9)
    resumed, counted_again = run(9, ckpt_path=tmp_path / "4")
    assert is_bitwise_equal(weights(resumed), weights(straight))
    rates = [each.optimizer.param_groups[0] for each in (resumed, straight)]
    assert type(rates[0]["lr"]) is np.float32 and rates[0]["lr"] == rates[1]["lr"]
    assert type(counted_again.num_steps) is np.int64 and counted_again.num_steps == 9
    assert counted_again.sums.tobytes() == counted.sums.tobytes() and counted_again.sums.flags.f_contiguous


class Tagged(torch.optim.lr_scheduler.LambdaLR):
    """A scheduler that keeps a set."""

    def __init__(self, optimizer: Any) -> None:
        super().__init__(optimizer, lambda step: 1.0)
        self.tags = {"warm"}


class Late(Callback):
    """Has a state that cannot be saved from the start of a fit on."""

    def setup(self, *_: Any) -> None:
        self.state: Any = None

    def on_fit_start(self, *_: Any) -> None:
        self.state = np.array([print])

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.state}


def grouped(parameters: Any) -> Any:
    return torch.optim.SGD([{"params": list(parameters), "tags": {"a"}}], lr=0.1)


@pytest.mark.parametrize(
    ("settings", "data", "message"),
    [
        ({"schedulers": [Tagged]}, None, "schedulers[0].tags: expected a tensor, a NumPy array or scalar of numbers, "),
        ({"optimizer": grouped}, None, "optimizer.param_groups[0].tags: expected a tensor, a NumPy array"),
        ({"callbacks": [Late()]}, None, "callbacks.Late.seen: expected a NumPy dtype of bools, integers, floats or "),
        ({}, Order(np.array([3, 0, 2, 1, 5, 4], dtype=object)), "data.dataloader.order: expected a NumPy dtype of "),
    ],
    ids=["scheduler", "optimizer", "callback", "loader"],
)
def test_a_state_that_cannot_be_saved_is_refused_before_the_first_step(
    settings: dict[str, Any], data: Any, message: str, tmp_path: Path
) -> None:
    data = data or batches(6)
    ours = trainer(TrainingLoop(max_steps=4), checkpoint=Checkpointing(every_n_steps=2), run_dir=tmp_path, **settings)
    with pytest.raises(SettingError) as caught:
        ours.fit(data)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)
    assert ours.global_step == 0
    trainer(TrainingLoop(max_steps=4), **settings).fit(data)  # a fit that saves nothing needs no state


def test_an_older_checkpoint_with_plain_numbers_resumes_in_a_run_with_numpy_numbers(tmp_path: Path) -> None:
    """A float64 of NumPy was saved as a plain number before it kept its type."""
    schedule: Any = partial(torch.optim.lr_scheduler.StepLR, step_size=2)
    plain = trainer(TrainingLoop(max_steps=2), schedulers=[partial(schedule, gamma=0.5)], optimizer=adamw)
    plain.fit(batches(5))
    plain.save_checkpoint(tmp_path / "plain")
    ours = trainer(TrainingLoop(max_steps=4), schedulers=[partial(schedule, gamma=np.float64(0.5))], optimizer=adamw)
    with pytest.raises(SettingError):
        ours.fit(batches(4), ckpt_path=tmp_path / "plain")
    assert ours.fit(batches(5), ckpt_path=tmp_path / "plain").global_step == 4
