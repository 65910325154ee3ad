"""Compares the cost of a step of the `Trainer` with a hand-written training loop, on a very small model.

    python bench/overhead.py                              # call counts, and ratios of CPU time for every kind of data
    python bench/overhead.py --pairs 31 --only "own set"  # more pairs, fewer kinds of data
    python bench/overhead.py --measuring                  # the measuring callbacks, compared with a run without them

The model is an MLP with 64, 64 and 10 units, which is trained with batches of 32 rows, SGD and one thread. The calls of
Python functions and C functions from one forward to the next are counted with `sys.setprofile`. The counts are equal in
every run of this benchmark. CPU time includes dataloader worker processes, and is measured in pairs: a training with
the `Trainer`, and a training with the hand-written loop over the same dataloader, in alternating order. The
hand-written loop is also compared with itself, which shows the variation of the times on this machine.

With ``--measuring``, a training with one measuring callback is compared with a training without callbacks. Every 50th
step is a log step, but there are no loggers.
"""

from __future__ import annotations

import argparse
import functools
import gc
import itertools
import multiprocessing
import platform
import random
import resource
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, get_worker_info

from loopwright import Callback, Trainer, TrainingLoop
from loopwright.callbacks import DataStall, GradientNorms, Memory, NoiseScale, Profile, Summary, Throughput, Utilisation

BATCH_SIZE = 32

Sample = tuple[Tensor, Tensor]
MakeLoader = Callable[[int, int], DataLoader[Any]]  # the arguments are the number of batches and the number of workers


class Mlp(nn.Module):
    """The model of the `Trainer` and of the hand-written loop. The forward returns the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(64, 64)
        self.head = nn.Linear(64, 10)

    def forward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the mean cross entropy of a batch of (features, labels)."""
        features, labels = batch
        return nn.functional.cross_entropy(self.head(nn.functional.relu(self.hidden(features))), labels)


def rows(num_rows: int) -> TensorDataset:
    """Return a data set of random rows, which are equal in every call."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(num_rows, 64, generator=generator)
    return TensorDataset(features, torch.randint(10, (num_rows,), generator=generator))


def ready_batches(num_batches: int) -> list[Sample]:
    """Return a list of batches of 32 rows."""
    features, labels = rows(BATCH_SIZE * num_batches).tensors
    return list(zip(features.split(BATCH_SIZE), labels.split(BATCH_SIZE), strict=True))


class OwnSet(Dataset[Any]):
    """A simple data set of a user. Samples are returned by index, and ``is_random`` is not set."""

    def __init__(self, samples: Sequence[Any] | TensorDataset) -> None:
        self.samples = samples

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        """Return one sample."""
        features, labels = self.samples[index]
        return features, labels


class OwnNoisySet(OwnSet):
    """An `OwnSet` that adds noise to every sample."""

    def __getitem__(self, index: int) -> Sample:
        """Return one sample with noise."""
        features, labels = super().__getitem__(index)
        return features + 0.1 * torch.randn(64), labels


class Stream(IterableDataset[Any]):
    """An iterable data set of samples in a fixed order. Each worker yields different samples."""

    def __init__(self, samples: TensorDataset) -> None:
        self.samples = samples

    def __iter__(self) -> Iterator[Sample]:
        """Iterate over the samples of this worker, or over all samples in the main process."""
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        return (self.samples[index] for index in range(first, len(self.samples), step))


def ready(num_batches: int, num_workers: int = 0) -> DataLoader[Any]:
    """Return a dataloader over a list of batches."""
    return DataLoader(ready_batches(num_batches), batch_size=None, num_workers=num_workers)  # type: ignore[arg-type]


def own_ready(num_batches: int, num_workers: int = 0) -> DataLoader[Any]:
    """Return a dataloader over a user's data set that contains batches instead of samples."""
    return DataLoader(OwnSet(ready_batches(num_batches)), batch_size=None, num_workers=num_workers)


def batched(make: Callable[[TensorDataset], Dataset[Any]], num_batches: int, num_workers: int = 0) -> DataLoader[Any]:
    """Return a dataloader that collates batches of 32 samples. Samples are shuffled unless the data set is iterable."""
    dataset = make(rows(BATCH_SIZE * num_batches))
    is_stream = isinstance(dataset, IterableDataset)
    return DataLoader(dataset, batch_size=BATCH_SIZE, shuffle=not is_stream, num_workers=num_workers)


KINDS: Mapping[str, MakeLoader] = {
    "list of ready batches": ready,
    "own set of ready batches": own_ready,
    "TensorDataset": functools.partial(batched, lambda data: data),
    "own set": functools.partial(batched, OwnSet),
    "own set with noise": functools.partial(batched, OwnNoisySet),
    "iterable": functools.partial(batched, Stream),
}


def train_by_hand(loader: DataLoader[Any], num_steps: int) -> Mlp:
    """Train with the hand-written loop. Do not change this loop, because recorded results refer to it.

    A step consists only of ``zero_grad``, the forward with the loss, ``backward`` and ``optimizer.step``.
    """
    torch.manual_seed(0)
    model = Mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for batch in loader:
        optimizer.zero_grad()
        loss = model(batch)
        loss.backward()
        optimizer.step()
    return model


MEASURING: Mapping[str, Callable[[], Callback]] = {
    "Throughput": Throughput,
    "Memory": Memory,
    "DataStall": DataStall,
    "Utilisation": functools.partial(Utilisation, 1e12),
    "GradientNorms": GradientNorms,
    "GradientNorms(parameter)": functools.partial(GradientNorms, "parameter"),
    "NoiseScale": NoiseScale,
    "Profile": Profile,
    "Summary": Summary,
}
# `NoiseScale` needs several micro-batches in a step, with a known number of samples. It is compared with a training on
# the same data that also has two micro-batches in a step.
NUM_MICRO_BATCHES: Mapping[str, int] = {"NoiseScale": 2}


def train_with_trainer(
    loader: DataLoader[Any],
    num_steps: int,
    callbacks: Sequence[Callback] = (),
    log_every_n_steps: int = 10**9,
    run_dir: Path | None = None,
    grad_accum_steps: int = 1,
) -> Mlp:
    """Train the same model on the same data with the `Trainer`. ``num_steps`` is the number of micro-batches."""
    torch.manual_seed(0)
    trainer = Trainer(
        model=Mlp(),
        optimizer=functools.partial(torch.optim.SGD, lr=0.1),
        loop=TrainingLoop(num_steps=num_steps // grad_accum_steps, grad_accum_steps=grad_accum_steps),
        device="cpu",
        callbacks=callbacks,
        loggers=[],
        log_every_n_steps=log_every_n_steps,
        run_dir=run_dir,
    )
    trainer.fit(loader)
    model = trainer.model
    assert isinstance(model, Mlp)
    return model


def train_measured(
    make: Callable[[], Callback] | None,
    loader: DataLoader[Any],
    num_steps: int,
    log_every_n_steps: int = 50,
    grad_accum_steps: int = 1,
) -> Mlp:
    """Train with the `Trainer` in a temporary run directory, with one callback or with none."""
    with tempfile.TemporaryDirectory() as run_dir:
        callbacks = [] if make is None else [make()]
        return train_with_trainer(loader, num_steps, callbacks, log_every_n_steps, Path(run_dir), grad_accum_steps)


def calls_per_step(train: Callable[..., object], make: MakeLoader = ready, num_steps: int = 24) -> list[int]:
    """Return the number of function calls from each forward to the next, without the first two and last two steps."""
    forward_code = Mlp.forward.__code__
    num_calls = 0
    marks: list[int] = []

    def count(frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal num_calls
        if event in ("call", "c_call"):
            num_calls += 1
            if event == "call" and frame.f_code is forward_code:
                marks.append(num_calls)

    loader = make(num_steps, 0)
    gc.collect()
    gc.disable()  # a collection during the training would call finalizers
    sys.setprofile(count)
    try:
        train(loader, num_steps)
    finally:
        sys.setprofile(None)
        gc.enable()
    return [later - earlier for earlier, later in itertools.pairwise(marks[2:-2])]


def cpu_seconds(train: Callable[..., object], loader: DataLoader[Any], num_steps: int) -> float:
    """Return the CPU seconds of one training, in this process and in its dataloader workers."""
    gc.collect()
    start = _cpu_seconds_so_far()
    train(loader, num_steps)
    if loader.num_workers:  # the CPU time of workers is available after they have ended and were joined
        gc.collect()
        for worker in multiprocessing.active_children():
            worker.join()
    return _cpu_seconds_so_far() - start


def _cpu_seconds_so_far() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def paired_seconds(
    train: Callable[..., object],
    loader: DataLoader[Any],
    num_pairs: int,
    num_steps: int,
    other: Callable[..., object] = train_by_hand,
) -> list[tuple[float, float]]:
    """Return the CPU seconds of ``train`` and of ``other`` for each pair. The order alternates."""
    trainings = (train, other)
    for each in trainings:
        each(loader, num_steps)
    pairs = []
    for pair in range(num_pairs):
        order = reversed(trainings) if pair % 2 else trainings
        seconds = [cpu_seconds(each, loader, num_steps) for each in order]
        ours, others = reversed(seconds) if pair % 2 else seconds
        pairs.append((ours, others))
    return pairs


def median_interval(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Return the median, and the limits of the 95 % confidence interval of the median.

    The interval is computed by the percentile bootstrap (Efron 1979) with 2000 resamples.
    """
    chance = random.Random(0)
    medians = sorted(statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(2000))
    return statistics.median(ratios), medians[49], medians[1949]


def main() -> None:
    """Measure and print the call counts and the ratios of CPU times."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=21, help="number of pairs of trainings to time")
    parser.add_argument("--steps", type=int, default=2000, help="number of steps of each training")
    parser.add_argument(
        "--only", default="", help="only the kinds of data, or the callbacks, whose name contains this text"
    )
    parser.add_argument("--measuring", action="store_true", help="measure the measuring callbacks instead")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{platform.platform()}, Python {platform.python_version()}, torch {torch.__version__}, one thread")
    if options.measuring:
        report_measuring(options.pairs, options.steps, options.only)
        return
    for name in ("list of ready batches", "own set"):
        by_hand = calls_per_step(train_by_hand, KINDS[name])
        ours = calls_per_step(train_with_trainer, KINDS[name])
        many = functools.partial(train_with_trainer, callbacks=[Callback() for _ in range(100)])
        with_many = calls_per_step(many, KINDS[name])
        for loop, counts in (("by hand", by_hand), ("Trainer", ours), ("Trainer, 100 idle callbacks", with_many)):
            spread = "in every step" if len(set(counts)) == 1 else f"min {min(counts)}, max {max(counts)}"
            print(f"calls per step  {name:22} {loop:28} {statistics.median_low(counts):4d}  ({spread})")
    print(f"CPU time of a step, median of {options.pairs} pairs of {options.steps} steps; ratio with 95 % interval")
    for name, make in KINDS.items():
        for num_workers in (0, 2):
            if options.only in name:
                loader = make(options.steps, num_workers)
                report(name, num_workers, train_with_trainer, loader, options.pairs, options.steps)
    report("by hand / by hand", 0, train_by_hand, ready(options.steps), options.pairs, options.steps)


def report_measuring(num_pairs: int, num_steps: int, only: str) -> None:
    """Print a line for each measuring callback: the added function calls, and the ratio of the CPU times."""
    print(
        f"calls added to a step and to a log step; CPU time, median of {num_pairs} pairs of {num_steps} micro-batches"
    )
    for name, make in {"nothing": None, **MEASURING}.items():
        if only not in name:
            continue
        accum = NUM_MICRO_BATCHES.get(name, 1)
        make_loader = ready if accum == 1 else KINDS["TensorDataset"]
        train = functools.partial(train_measured, make, grad_accum_steps=accum)
        plain = functools.partial(train_measured, None, grad_accum_steps=accum)
        between, at_log = (
            calls_of_step(train, make_loader, accum, every) - calls_of_step(plain, make_loader, accum, every)
            for every in (10**9, 1)
        )
        pairs = paired_seconds(train, make_loader(num_steps, 0), num_pairs, num_steps, plain)
        median, low, high = median_interval([one / other for one, other in pairs])
        print(f"{name:26} {between:4d} {at_log:5d}   {median:.3f}  ({low:.3f} to {high:.3f})", flush=True)


def calls_of_step(train: Callable[..., object], make: MakeLoader, grad_accum_steps: int, log_every: int) -> int:
    """Return the median number of function calls in a step of ``grad_accum_steps`` micro-batches."""
    counts = calls_per_step(functools.partial(train, log_every_n_steps=log_every), make)
    starts = range(0, len(counts) - grad_accum_steps + 1, grad_accum_steps)
    return statistics.median_low([sum(counts[start : start + grad_accum_steps]) for start in starts])


def report(
    name: str, num_workers: int, train: Callable[..., object], loader: DataLoader[Any], num_pairs: int, num_steps: int
) -> None:
    """Compare ``train`` with the hand-written loop, and print a line of the table.

    The line contains the microseconds per step with ``train`` and with the hand-written loop, and their ratio.
    """
    pairs = paired_seconds(train, loader, num_pairs, num_steps)
    ours, by_hand = (1e6 / num_steps * statistics.median(column) for column in zip(*pairs, strict=True))
    median, low, high = median_interval([one / other for one, other in pairs])
    interval = f"{median:.3f}  ({low:.3f} to {high:.3f})"
    print(f"{name:26} {num_workers} workers  {ours:6.0f} us  by hand {by_hand:6.0f} us  {interval}", flush=True)


if __name__ == "__main__":
    main()
