"""Compares the cost of a step with a hand-written loop, on a tiny model: MLP 64-64-10, batch 32, SGD, one thread.

    python bench/overhead.py              # call counts, and paired CPU-time ratios
    python bench/overhead.py --pairs 31   # more pairs

Function calls, of Python and C together, are counted with `sys.setprofile` from one forward to the next; the counts are
exactly reproducible. CPU time is measured in pairs: a training with the `Trainer` and one with the hand-written loop,
alternately. The hand-written loop is also compared with itself, which shows how much the times vary by themselves.
"""

from __future__ import annotations

import argparse
import functools
import gc
import itertools
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from loopwright import Callback, Trainer, TrainingLoop

Batches = list[tuple[Tensor, Tensor]]


class Mlp(nn.Module):
    """The model of both loops. Its forward returns the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(64, 64)
        self.head = nn.Linear(64, 10)

    def forward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the mean cross entropy of a batch of (features, labels)."""
        features, labels = batch
        return nn.functional.cross_entropy(self.head(nn.functional.relu(self.hidden(features))), labels)


def ready_batches(num_batches: int) -> Batches:
    """Return batches of 32 random rows."""
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(32, 64, generator=generator), torch.randint(10, (32,), generator=generator))
        for _ in range(num_batches)
    ]


def train_by_hand(batches: Batches) -> Mlp:
    """Train with the hand-written loop. It must stay as it is: zero_grad, forward and loss, backward, step."""
    torch.manual_seed(0)
    model = Mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for batch in DataLoader(batches, batch_size=None):  # type: ignore[arg-type]  # a list is a data set
        optimizer.zero_grad()
        loss = model(batch)
        loss.backward()
        optimizer.step()
    return model


def train_with_trainer(batches: Batches, callbacks: Sequence[Callback] = ()) -> Mlp:
    """Train the same model with the `Trainer`."""
    torch.manual_seed(0)
    trainer = Trainer(
        model=Mlp(),
        optimizer=functools.partial(torch.optim.SGD, lr=0.1),
        loop=TrainingLoop(num_steps=len(batches)),
        device="cpu",
        callbacks=callbacks,
        log_every_n_steps=10**9,
    )
    trainer.fit(DataLoader(batches, batch_size=None))  # type: ignore[arg-type]  # a list is a data set
    model = trainer.model
    assert isinstance(model, Mlp)
    return model


def calls_per_step(train: Callable[[Batches], object], num_steps: int = 24) -> list[int]:
    """Return the number of function calls from each forward to the next, without the first and last few steps."""
    forward_code = Mlp.forward.__code__
    num_calls = 0
    marks: list[int] = []

    def count(frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal num_calls
        if event in ("call", "c_call"):
            num_calls += 1
            if event == "call" and frame.f_code is forward_code:
                marks.append(num_calls)

    batches = ready_batches(num_steps)
    gc.collect()
    gc.disable()  # a collection during the training would call finalizers
    sys.setprofile(count)
    try:
        train(batches)
    finally:
        sys.setprofile(None)
        gc.enable()
    return [later - earlier for earlier, later in itertools.pairwise(marks[2:-2])]


def cpu_seconds(train: Callable[[Batches], object], batches: Batches) -> float:
    """Return the CPU time of this process for one training."""
    gc.collect()
    start = time.process_time()
    train(batches)
    return time.process_time() - start


def paired_ratios(
    train: Callable[[Batches], object], other: Callable[[Batches], object], num_pairs: int, num_steps: int
) -> list[float]:
    """Return the CPU time of ``train`` divided by the CPU time of ``other`` for each pair; the order alternates."""
    batches = ready_batches(num_steps)
    train(batches), other(batches)
    ratios = []
    for pair in range(num_pairs):
        if pair % 2:
            below = cpu_seconds(other, batches)
            above = cpu_seconds(train, batches)
        else:
            above = cpu_seconds(train, batches)
            below = cpu_seconds(other, batches)
        ratios.append(above / below)
    return ratios


def median_interval(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Return the median and its 95 % interval, by the percentile bootstrap (Efron 1979), 2000 resamples."""
    chance = random.Random(0)
    medians = sorted(statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(2000))
    return statistics.median(ratios), medians[49], medians[1949]


def main() -> None:
    """Measure, and print call counts and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=21, help="pairs of trainings to time")
    parser.add_argument("--steps", type=int, default=2000, help="steps of each training")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{platform.platform()}, Python {platform.python_version()}, torch {torch.__version__}, one thread")
    by_hand = calls_per_step(train_by_hand)
    ours = calls_per_step(train_with_trainer)
    with_many = calls_per_step(lambda batches: train_with_trainer(batches, [Callback() for _ in range(100)]))
    for name, counts in (("by hand", by_hand), ("Trainer", ours), ("Trainer, 100 idle callbacks", with_many)):
        spread = "in every step" if len(set(counts)) == 1 else f"min {min(counts)}, max {max(counts)}"
        print(f"calls per step  {name:28} {statistics.median_low(counts):4d}  ({spread})")
    for name, train in (("Trainer / by hand", train_with_trainer), ("by hand / by hand", train_by_hand)):
        median, low, high = median_interval(paired_ratios(train, train_by_hand, options.pairs, options.steps))
        print(
            f"CPU time  {name:20} median {median:.3f}  95 % interval {low:.3f} to {high:.3f}  ({options.pairs} pairs)"
        )


if __name__ == "__main__":
    main()
