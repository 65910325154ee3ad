"""Overhead of a step: function calls, idle callbacks, and tensors read by the host between log steps."""

from __future__ import annotations

import importlib.util
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from torch.utils._python_dispatch import TorchDispatchMode

from loopwright import Callback, TrainingLoop
from tiny import batches, trainer


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


def test_callbacks_that_override_nothing_cost_no_call(overhead: ModuleType) -> None:
    with_many = partial(overhead.train_with_trainer, callbacks=[Callback() for _ in range(100)])
    assert overhead.calls_per_step(with_many) == overhead.calls_per_step(overhead.train_with_trainer)


class ReadBacks(TorchDispatchMode):
    """Counts how often the host reads a tensor value."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += "_local_scalar_dense" in str(func)
        return func(*args, **(kwargs or {}))


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
