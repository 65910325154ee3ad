"""Overhead of a step: function calls, idle callbacks, and tensors read by the host between log steps."""

from __future__ import annotations

import gc
import importlib.util
import sys
from functools import partial
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import distributed
import pytest
import torch
from torch import nn

from loopwright import Callback, TrainingLoop
from loopwright.engine.train_mean import TrainMean
from loopwright.engine.weighting import as_outputs
from tiny import ReadBacks, batches, trainer

MOST_ADDED_CALLS = 191  # in one of two processes, for the model of `bench/overhead.py`


@pytest.fixture(scope="module")
def overhead() -> ModuleType:
    path = Path(__file__).parents[1] / "bench" / "overhead.py"
    spec = importlib.util.spec_from_file_location("overhead", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(sys.gettrace() is not None, reason="a tracer adds calls")
@pytest.mark.parametrize("kind", ["list of ready batches", "own set of ready batches", "TensorDataset", "own set"])
def test_a_step_makes_no_more_calls_than_a_hand_written_loop(overhead: ModuleType, kind: str) -> None:
    by_hand = overhead.calls_per_step(overhead.train_by_hand, overhead.KINDS[kind])
    ours = overhead.calls_per_step(overhead.train_with_trainer, overhead.KINDS[kind])
    assert len(set(by_hand)) == 1 and len(set(ours)) == 1
    assert ours[0] <= by_hand[0]


@pytest.mark.skipif(sys.gettrace() is not None, reason="a tracer adds calls")
def test_a_step_in_two_processes_adds_a_fixed_number_of_calls() -> None:
    """The hand-written loop uses `DistributedDataParallel`, too. The number grows with the number of parameters."""
    case = distributed.CASES["MLP, 5 thousand"]
    trainings = (distributed.by_hand, distributed.with_trainer)
    by_hand, ours = (distributed.in_processes(distributed.calls_per_step, train, case)[0] for train in trainings)
    assert len(set(by_hand)) == 1 and len(set(ours)) == 1
    assert ours[0] - by_hand[0] <= MOST_ADDED_CALLS


class Scalars(nn.Module):
    """Returns a loss and ``num_more`` other metrics: tensors, or Python numbers if asked for."""

    def __init__(self, num_more: int, are_numbers: bool) -> None:
        super().__init__()
        self.head = nn.Linear(64, 10)
        self.more: dict[str, Any] = {f"m{i}": 0.5 if are_numbers else torch.ones(()) for i in range(num_more)}

    def forward(self, batch: Any) -> dict[str, Any]:
        logits = self.head(batch[0])
        return {"loss": nn.functional.cross_entropy(logits, batch[1]), "logits": logits, **self.more}


def calls_of_means(loader: Any, num_more: int, are_numbers: bool, grad_accum_steps: int) -> set[int]:
    """Return the numbers of calls of `as_outputs` and `TrainMean.add` in the micro-batches after the first six.

    The two functions themselves are counted.
    """
    codes = {as_outputs.__code__, TrainMean.add.__code__}
    num_calls, is_inside = 0, False
    counts: list[int] = []

    def count(frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal num_calls, is_inside
        is_inside |= event == "call" and frame.f_code in codes
        num_calls += is_inside and event in ("call", "c_call")
        if event == "return" and frame.f_code in codes:
            is_inside = False
            if frame.f_code is TrainMean.add.__code__:
                counts.append(num_calls)
                num_calls = 0

    loop = TrainingLoop(num_steps=12 // grad_accum_steps, grad_accum_steps=grad_accum_steps)
    ours = trainer(loop, model=partial(Scalars, num_more, are_numbers), log_every_n_steps=10**9)
    gc.collect()
    gc.disable()  # a collection during the training would call finalizers
    sys.setprofile(count)
    try:
        ours.fit(loader)
    finally:
        sys.setprofile(None)
        gc.enable()
    return {*counts[6:-grad_accum_steps]}


@pytest.mark.skipif(sys.gettrace() is not None, reason="a tracer adds calls")
@pytest.mark.parametrize("kind", ["list of ready batches", "own set", "list"])
@pytest.mark.parametrize("are_numbers", [False, True])
def test_the_means_cost_at_most_three_calls_a_scalar(overhead: ModuleType, kind: str, are_numbers: bool) -> None:
    """The loss costs 3: these functions make 6 calls, and `as_outputs` alone made 3 before there were means."""
    each = 0 if are_numbers else 2

    def loader() -> Any:
        return overhead.ready_batches(12) if kind == "list" else overhead.KINDS[kind](12, 0)

    for num_more in (0, 4):
        assert calls_of_means(loader(), num_more, are_numbers, 1) == {6 + each * num_more}
        if kind != "list of ready batches":  # which has no known number of samples in a batch
            assert calls_of_means(loader(), num_more, are_numbers, 3) == {4 + each * num_more}


def test_callbacks_that_override_nothing_cost_no_call(overhead: ModuleType) -> None:
    with_many = partial(overhead.train_with_trainer, callbacks=[Callback() for _ in range(100)])
    assert overhead.calls_per_step(with_many) == overhead.calls_per_step(overhead.train_with_trainer)


@pytest.mark.parametrize("grad_accum_steps", [1, 3])
def test_nothing_is_read_back_between_log_steps(grad_accum_steps: int) -> None:
    counts: list[tuple[int, int]] = []

    class Watching(Callback):
        def on_train_batch_end(self, ours: Any, *args: Any) -> None:
            counts.append((ours.global_step, mode.count))

    loop = TrainingLoop(num_steps=8, grad_accum_steps=grad_accum_steps)
    ours = trainer(loop, callbacks=[Watching()], log_every_n_steps=4)
    with ReadBacks() as mode:
        ours.fit(batches(24))
    after = dict(counts)
    assert after[3] == 0 and after[7] == after[4]


def test_the_dispatch_mode_sees_a_read_back() -> None:
    with ReadBacks() as mode:
        batches(1)[0][0].sum().item()
    assert mode.count == 1
