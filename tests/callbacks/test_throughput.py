"""Tests of `Throughput`, with a clock that the model and the validation move."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import tiny
from loopwright import TrainingLoop
from loopwright.callbacks import DataStall, Throughput, Utilisation
from loopwright.data import Loader
from loopwright.device import Device
from ranked import on_ranks


class Slow(tiny.Regression):
    """Takes 2 seconds for each training micro-batch, and 100 seconds for each validation batch."""

    def __init__(self, now: list[float], items: str) -> None:
        super().__init__()
        self.now, self.items = now, items

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Any]:
        self.now[0] += 2.0 if self.training else 100.0
        outputs: dict[str, Any] = super().forward(batch)
        num_items = 3 * len(batch[0])
        given = {"int": num_items, "tensor": torch.tensor(num_items), "float": torch.tensor(float(num_items))}
        return {**outputs, "num_items": given[self.items]} if self.items in given else outputs


def rates(now: list[float], items: str, data: Any = None, **loop: Any) -> dict[str, dict[int, float]]:
    logged = tiny.Logged()
    ours = tiny.trainer(
        TrainingLoop(**({"num_steps": 4} | loop)),
        model=lambda: Slow(now, items),
        callbacks=[Throughput()],
        loggers=[logged],
        log_every_n_steps=2,
    )
    ours.fit(tiny.batches(4, 5) if data is None else data, tiny.batches(1))
    return {name: by_step for name, by_step in logged.timing.items() if name.endswith("s_per_second")}


@pytest.mark.parametrize("items", ["int", "tensor", "float"])
def test_samples_and_items_are_exact_and_validations_do_not_count(now: list[float], items: str) -> None:
    found = rates(now, items, eval_frequency=1)
    assert found["train/samples_per_second"] == {2: 2.5, 4: 2.5}
    assert found["train/items_per_second"] == {2: 7.5, 4: 7.5}
    assert found["train/steps_per_second"] == {2: 0.5, 4: 0.5}


def test_without_items_only_samples_are_logged(now: list[float]) -> None:
    assert "train/items_per_second" not in rates(now, "none")


def test_all_micro_batches_of_a_step_count(now: list[float]) -> None:
    """The two passes have 3 + 3 + 2 micro-batches, of 5, 5, 5, 5, 5, 5, 5 and 1 samples."""
    features, target = tiny.rows(36).tensors
    data = list(zip(features.split(5), target.split(5), strict=True))
    found = rates(now, "int", data, num_steps=3, grad_accum_steps=3)
    assert found["train/samples_per_second"] == {2: 30 / 12, 3: 6 / 4}


def test_a_batch_with_an_unknown_number_of_samples_logs_only_items(now: list[float]) -> None:
    class Lists(Slow):
        def forward(self, batch: Any) -> dict[str, Any]:
            return super().forward(tuple(map(torch.stack, batch)))

    logged = tiny.Logged()
    ours = tiny.trainer(
        TrainingLoop(num_steps=2), model=lambda: Lists(now, "int"), callbacks=[Throughput()], loggers=[logged]
    )
    ours.fit([[list(each) for each in batch] for batch in tiny.batches(4)])
    assert logged.timing["train/items_per_second"] == {2: 6.0}
    assert "train/samples_per_second" not in logged.timing


def compiled(rank: int, now: list[float]) -> dict[str, dict[int, float]]:
    """Train with a compiled model whose first forward takes 1,000 seconds more."""

    class Compiling(Slow):
        def forward(self, batch: Any) -> dict[str, Any]:
            self.now[0] += 0.0 if self.num_calls else 1000.0
            self.num_calls += 1
            return super().forward(batch)

        num_calls = 0

    logged = tiny.Logged()
    ours = tiny.trainer(
        TrainingLoop(num_steps=4),
        model=lambda: Compiling(now, "int"),
        callbacks=[Throughput(), Utilisation(1e12), DataStall()],
        loggers=[logged],
        log_every_n_steps=1,
        device=Device(kind="cpu", compile={"target": "blocks", "backend": "eager"}, blocks=("Tanh",)),
    )
    ours.fit(Loader(tiny.rows(24), batch_size=4))
    return logged.timing


@pytest.mark.parametrize("world_size", [1, 2])
def test_the_step_that_compiles_is_left_out(world_size: int, now: list[float]) -> None:
    timing = on_ranks(world_size, compiled, now)[0]
    assert timing["train/compile_seconds"] == {1: 1002.0}
    assert timing["train/samples_per_second"] == {2: 2.0, 3: 2.0, 4: 2.0}
    assert timing["train/steps_per_second"] == {1: 0.0, 2: 0.5, 3: 0.5, 4: 0.5}
    assert [*timing["train/teraflops_per_second"]] == [*timing["train/data_stall_fraction"]] == [2, 3, 4]
    assert len({*timing["train/teraflops_per_second"].values()}) == 1
