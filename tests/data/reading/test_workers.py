"""Workers that fail: the error, and the end of all workers."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from loopwright.data import Loader, as_source
from loopwright.errors import DataError


class Silent(Exception):
    """An error without a text: `str` of it fails."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class Failing(Dataset[Any]):
    """Twelve rows, of which the sixth fails in the way of ``kind``."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Any:
        if index == 5 and self.kind == "lock":
            return threading.Lock()
        if index == 5 and self.kind == "silent":
            raise Silent
        return torch.tensor([float(index)])


class Stream(Failing, IterableDataset[Any]):
    """The same rows as a stream."""

    def __iter__(self) -> Iterator[Any]:
        return map(self.__getitem__, range(len(self)))


class OwnLoader(DataLoader[Any]):
    """A subclass, whose own iterator is used."""


def _same(samples: list[Any]) -> list[Any]:
    return samples


def _refuse(worker: int) -> None:
    if worker == 1:
        raise ValueError("this worker does not start")


@pytest.mark.parametrize("make", [Loader, DataLoader, partial(DataLoader, persistent_workers=True)])
def test_a_batch_that_cannot_be_pickled_is_named(make: Any, num_workers_left: Callable[..., int]) -> None:
    """Torch's queue would drop it, and the training process would wait forever."""
    batches = as_source(make(Failing("lock"), batch_size=4, num_workers=2, collate_fn=_same), 0).read(0, 0)
    assert len(next(batches)) == 4
    said = (
        r"^Failing: samples 4, 5, 6, 7 cannot be sent to the main process \(worker 1\): "
        r"TypeError: cannot pickle '_thread.lock' object$"
    )
    with pytest.raises(DataError, match=said):
        next(batches)
    assert num_workers_left(within_seconds=10) == 0


@pytest.mark.parametrize("make", [partial(DataLoader, Stream("lock")), partial(OwnLoader, Failing("lock"))])
def test_a_batch_of_a_stream_or_a_subclass_that_cannot_be_pickled_is_an_error(
    make: Any, num_workers_left: Callable[..., int]
) -> None:
    loader = make(batch_size=4, num_workers=1, collate_fn=_same)
    batches = as_source(loader, 0).read(0, 0)
    assert len(next(batches)) == 4
    said = (
        r"^(Stream|Failing): a batch cannot be sent to the main process \(worker 0\): "
        r"TypeError: cannot pickle '_thread.lock' object$"
    )
    with pytest.raises(DataError, match=said):
        next(batches)
    assert num_workers_left(within_seconds=10) == 0
    assert loader.worker_init_fn is None


@pytest.mark.parametrize(
    ("make", "dataset"), [(Loader, Failing), (DataLoader, Failing), (OwnLoader, Failing), (DataLoader, Stream)]
)
def test_a_worker_outlives_a_signal_to_all_processes(make: Any, dataset: Any) -> None:
    before = set(multiprocessing.active_children())
    batches = as_source(make(dataset("none"), batch_size=1, num_workers=1), 0).read(0, 0)
    next(batches)
    (worker,) = set(multiprocessing.active_children()) - before
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        os.kill(worker.pid or 0, number)
    assert len(list(batches)) == 11


def test_workers_end_if_one_of_them_does_not_start(num_workers_left: Callable[..., int]) -> None:
    batches = as_source(DataLoader(Failing("none"), batch_size=4, num_workers=2, worker_init_fn=_refuse), 0).read(0, 0)
    next(batches)
    with pytest.raises(ValueError, match="this worker does not start"):
        next(batches)
    assert num_workers_left(within_seconds=10) == 0  # although the error still refers to the iterator


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_exception_that_cannot_be_printed_is_named_by_its_type(num_workers: int) -> None:
    batches = as_source(Loader(Failing("silent"), batch_size=4, num_workers=num_workers), 0).read(0, 0)
    next(batches)
    with pytest.raises(DataError, match=r"^Failing: sample 5 cannot be read( \(worker 1\))?: Silent$"):
        next(batches)


def _fail_oddly(worker: int) -> None:
    class Odd(Exception):
        """A class that cannot be pickled."""

    raise Odd("of all things")


@pytest.mark.parametrize("make", [DataLoader, OwnLoader])
def test_an_error_that_cannot_be_pickled_is_an_error(make: Any, num_workers_left: Callable[..., int]) -> None:
    loader = make(Failing("none"), batch_size=4, num_workers=2, worker_init_fn=_fail_oddly)
    batches = as_source(loader, 0).read(0, 0)
    with pytest.raises(
        DataError, match=r"^Failing: a batch cannot be sent to the main process \(worker 0\): .*Odd"
    ) as raised:
        list(batches)
    assert "of all things" in str(raised.value.__cause__)
    assert num_workers_left(within_seconds=10) == 0
