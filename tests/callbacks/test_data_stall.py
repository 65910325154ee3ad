"""Tests of `DataStall`, with a clock that the data and the model move."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import tiny
from loopwright import TrainingLoop
from loopwright.callbacks import DataStall


class Slow(tiny.Regression):
    """Takes 3 seconds for each batch."""

    def __init__(self, now: list[float]) -> None:
        super().__init__()
        self.now = now

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Any]:
        self.now[0] += 3.0
        return {**super().forward(batch), "num_items": len(batch[0])}


class SlowData(Dataset[Any]):
    """Takes 1 second for each batch, of which there are 4."""

    def __init__(self, now: list[float]) -> None:
        self.now, self.batches = now, tiny.batches(4)

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        self.now[0] += 1.0
        return self.batches[index]


class Stream:
    """Batches without a length, of which each takes 1 second."""

    def __init__(self, now: list[float]) -> None:
        self.data = SlowData(now)

    def __iter__(self) -> Iterator[Any]:
        return (self.data[index] for index in range(4))


@pytest.mark.parametrize("kind", ["torch", "stream"])
@pytest.mark.parametrize("grad_accum_steps", [1, 2])
def test_the_share_of_waiting_is_exact(kind: str, grad_accum_steps: int, now: list[float]) -> None:
    loader = Stream(now) if kind == "stream" else DataLoader(SlowData(now), batch_size=None)
    logged = tiny.Logged()
    ours = tiny.trainer(
        TrainingLoop(num_steps=6, grad_accum_steps=grad_accum_steps, eval_frequency=2),
        model=lambda: Slow(now),
        callbacks=[DataStall()],
        loggers=[logged],
        log_every_n_steps=2,
    )
    ours.fit(loader, tiny.batches(1))
    assert logged.timing["train/data_stall_fraction"] == {2: 0.25, 4: 0.25, 6: 0.25}


def test_without_the_callback_no_read_is_timed() -> None:
    ours = tiny.trainer(TrainingLoop(num_steps=2))
    ours.fit(tiny.batches())
    assert ours.measures.data_seconds == 0 < ours.measures.train_seconds


def test_an_error_of_a_timed_dataloader_has_the_same_note() -> None:
    class Broken(Stream):
        def __iter__(self) -> Iterator[Any]:
            raise KeyError("row")
            yield

    with pytest.raises(KeyError) as raised:
        tiny.trainer(callbacks=[DataStall()]).fit(Broken([0.0]))
    assert raised.value.__notes__ == ["Raised by the training dataloader at micro-batch 0 of pass 0."]
