"""The order of a pass over more than 2**20 samples: it is computed from any start, and never held in memory."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, get_worker_info

from loopwright.data import Loader, as_source
from loopwright.data.reading.order import index_batches, pass_order
from loopwright.data.reading.permutation import Permutation
from loopwright.data.sets.formula import FormulaData
from loopwright.seeding import derive

BILLION = 10**9
LARGEST_HELD = 2**20


class LargestTensor(TorchDispatchMode):
    """Records the size in bytes of the largest tensor that an operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.num_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor):
            self.num_bytes = max(self.num_bytes, made.nbytes)
        return made


@dataclass
class Peak:
    """Peak memory of Python and NumPy, plus the size of torch's largest tensor."""

    num_bytes: int = 0


@contextmanager
def measured() -> Iterator[Peak]:
    peak = Peak()
    with LargestTensor():
        torch.zeros(1)  # torch's imports at the first operation are not counted
    tracemalloc.start()
    try:
        with LargestTensor() as tensors:
            yield peak
        peak.num_bytes = tracemalloc.get_traced_memory()[1] + tensors.num_bytes
    finally:
        tracemalloc.stop()


def numbers(num_samples: int) -> FormulaData:
    """Return a data set whose samples are their indices."""
    return FormulaData(num_samples, _itself)


def _itself(indices: Tensor) -> dict[str, Tensor]:
    return {"index": indices}


def read(loader: Any, first: int, num_batches: int, pass_index: int = 0) -> list[int]:
    batches = itertools.islice(as_source(loader, seed=7).read(pass_index, first), num_batches)
    return [index for batch in batches for index in batch["index"].tolist()]


LOADERS: dict[str, Any] = {
    "ours": lambda num_workers: Loader(numbers(BILLION), batch_size=50, shuffle=True, num_workers=num_workers),
    "torch": lambda num_workers: DataLoader(  # type: ignore[type-var]
        numbers(BILLION), batch_size=50, shuffle=True, num_workers=num_workers
    ),
}


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("kind", LOADERS)
def test_our_loader_and_torchs_read_a_billion_samples_in_the_same_order(kind: str, num_workers: int) -> None:
    first = 10**7
    order = Permutation(BILLION, derive(7, "order", 3))
    expected = order[50 * first : 50 * (first + 200)].tolist()
    assert read(LOADERS[kind](num_workers), first, 200, pass_index=3) == expected


def test_an_order_of_up_to_2_to_the_20_samples_is_a_seeded_randperm() -> None:
    for num_samples in (1, 2, 1797, LARGEST_HELD):
        generator = torch.Generator().manual_seed(derive(7, "order", 3))
        order = pass_order(num_samples, is_shuffled=True, seed=7, pass_index=3)
        assert isinstance(order, Tensor) and torch.equal(order, torch.randperm(num_samples, generator=generator))
    assert isinstance(pass_order(LARGEST_HELD + 1, is_shuffled=True, seed=7, pass_index=3), Permutation)


@pytest.mark.parametrize(
    "batch_size", [4096, *[pytest.param(size, marks=pytest.mark.slow) for size in (1000, 100_000)]]
)
def test_batches_of_a_computed_order_contain_each_index_once(batch_size: int) -> None:
    num_samples = LARGEST_HELD + 1
    order = pass_order(num_samples, is_shuffled=True, seed=0, pass_index=0)
    batches = list(index_batches(order, batch_size, 0, drop_last=False))
    assert sorted(itertools.chain.from_iterable(batches)) == list(range(num_samples))
    assert {len(batch) for batch in batches[:-1]} == {batch_size}
    for first in (1, 7, len(batches) - 1, len(batches)):
        assert list(index_batches(order, batch_size, first, drop_last=False)) == batches[first:]
    assert list(index_batches(order, batch_size, 0, drop_last=True)) == batches[:-1]


def test_each_pass_and_seed_has_another_order() -> None:
    orders = [
        pass_order(BILLION, is_shuffled=True, seed=seed, pass_index=pass_index)[:100].tolist()  # type: ignore[union-attr]
        for seed, pass_index in [(0, 0), (0, 1), (1, 0), (1, 1), (0, 0)]
    ]
    assert orders[0] == orders[-1] and len({tuple(order) for order in orders}) == 4


@pytest.mark.parametrize("first", [0, BILLION // 50 - 100])
@pytest.mark.parametrize("kind", LOADERS)
def test_reading_a_part_of_a_billion_samples_needs_little_memory(kind: str, first: int) -> None:
    loader = LOADERS[kind](0)
    with measured() as peak:
        assert len(read(loader, first, 100)) == 5000
    assert peak.num_bytes < 2**20


def test_the_memory_measurement_detects_an_order_in_memory() -> None:
    with measured() as peak:
        read(Loader(numbers(LARGEST_HELD), batch_size=50, shuffle=True), 0, 1)
    assert peak.num_bytes > 8 * LARGEST_HELD


def test_workers_receive_indices_and_compute_no_order(monkeypatch: pytest.MonkeyPatch) -> None:
    compute = Permutation.__getitem__

    def compute_here(self: Permutation, places: slice) -> Any:
        assert get_worker_info() is None, "a worker computed a part of the order"
        return compute(self, places)

    expected = read(LOADERS["ours"](0), 10**7, 200)
    monkeypatch.setattr(Permutation, "__getitem__", compute_here)
    assert read(LOADERS["ours"](1), 10**7, 200) == expected


def test_starting_late_computes_no_more_than_starting_at_the_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[int] = []
    permute_words = Permutation._permute_words

    def counted(self: Permutation, words: Any) -> Any:
        computed.append(len(words))
        return permute_words(self, words)

    monkeypatch.setattr(Permutation, "_permute_words", counted)
    work = {}
    for first in (0, 2 * 10**6, BILLION // 50 - 100):
        computed.clear()
        read(LOADERS["ours"](0), first, 1)
        work[first] = sum(computed)
    assert 4000 < work[0] < 2 * 4096
    assert max(work.values()) <= 1.02 * min(work.values())
