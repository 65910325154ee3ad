"""Reading batches by index, here or in worker processes, with the same result."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset, default_collate, default_convert, get_worker_info

from loopwright.data.faults import WorkerFailure, unreadable
from loopwright.data.order import index_batches, num_batches, pass_order
from loopwright.data.rows import Rows
from loopwright.errors import DataError
from loopwright.protocols import DataFacts
from loopwright.seeding import SideStreams, derive, forget_spare_normal, sample_seed, seed_host_streams

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

# Reading these, and collating so, runs no code of a user's, and cannot draw random numbers.
_PLAIN_TYPES = (list, tuple, range, TensorDataset)
_PLAIN_COLLATES = (default_collate, default_convert)

# (pass, the keys of one batch): whole numbers, or whatever a sampler of the user's yields
Block = tuple[int, list[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """How worker processes are started: the arguments of torch's `DataLoader` by their names.

    Args:
        num_workers: processes; 0 reads in this one.
        options: further arguments, such as ``prefetch_factor`` and ``pin_memory``.
    """

    num_workers: int = 0
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def is_needed(self) -> bool:
        """Whether torch's machinery is needed: for workers, or for a pinning thread."""
        return self.num_workers > 0 or bool(self.options.get("pin_memory"))


class SampleReader:
    """Reads samples under streams seeded by (seed, pass, index) and makes a batch of them.

    Args:
        dataset: has ``__getitem__``; ``is_random = False`` promises that reading draws no random numbers.
        collate: makes a batch of a list of samples, or of the one sample where ``is_batched`` is False.
        seed: of the run.
        is_batched: whether a block of indices is a batch; else it holds the one index of a ready batch.
    """

    def __init__(self, dataset: Any, collate: Callable[[Any], Any], *, seed: int, is_batched: bool = True) -> None:
        self.dataset = dataset
        self._collate = collate
        self.seed = seed
        self._is_batched = is_batched
        self._reads_seeded = getattr(dataset, "is_random", type(dataset) not in _PLAIN_TYPES)
        self._collates_seeded = collate not in _PLAIN_COLLATES
        self._takes_rows = collate is default_collate
        self._reads_many = is_batched and not self._reads_seeded and hasattr(dataset, "__getitems__")
        self._side = SideStreams(derive(seed, "read"), is_continued=False)

    @property
    def draws(self) -> bool:
        """Whether reading a batch may draw random numbers."""
        return self._reads_seeded or self._collates_seeded

    def read(self, block: Block) -> Any:
        """One batch, leaving the streams of this process as they were."""
        if not self.draws:
            return self.read_freely(block)
        with self._side:
            return self.read_freely(block)

    def read_freely(self, block: Block) -> Any:
        """One batch; streams are left as the last sample left them, as nobody else uses those of a worker."""
        pass_index, indices = block
        if self._reads_many:
            try:
                samples = self.dataset.__getitems__(indices)
            except Exception as error:
                raise unreadable(self.dataset, indices, error) from error
            if self._takes_rows and type(samples) is Rows:
                return samples.batch
        else:
            samples = [self._sample(pass_index, index) for index in indices]
        if self._collates_seeded:
            seed_host_streams(derive(self.seed, "collate", pass_index, repr(indices[:1])))
        try:
            return self._collate(samples if self._is_batched else samples[0])
        except Exception as error:
            raise unreadable(self.dataset, indices, error, "make no batch") from error

    def _sample(self, pass_index: int, index: Any) -> Any:
        if self._reads_seeded:
            seed_host_streams(sample_seed(self.seed, pass_index, index))
        try:
            return self.dataset[index]
        except Exception as error:
            raise unreadable(self.dataset, [index], error) from error


class _Blocks(Dataset[Any]):
    """A data set whose samples are ready batches, addressed by blocks; torch's `DataLoader` reads it."""

    def __init__(self, reader: SampleReader) -> None:
        self.reader = reader

    def __getitem__(self, block: Block) -> Any:
        if get_worker_info() is None:
            return self.reader.read(block)
        try:
            return self.reader.read_freely(block)
        except DataError as error:  # torch would raise it again with a traceback for its message
            return WorkerFailure.of(error)


class _StartWorker:
    """Starts a worker as the user's loader would: its data set, and not ours, is what ``get_worker_info`` tells of."""

    def __init__(self, worker_init_fn: Callable[[int], None] | None) -> None:
        self._worker_init_fn = worker_init_fn

    def __call__(self, worker: int) -> None:
        info: Any = get_worker_info()
        object.__setattr__(info, "dataset", info.dataset.reader.dataset)  # it refuses to be assigned to
        _outlive_signals()
        threading.Thread(target=_end_with_parent, name="loopwright-parent", daemon=True).start()
        sys.excepthook = _say_uncaught
        if self._worker_init_fn is not None:
            self._worker_init_fn(worker)


def _say_uncaught(kind: type[BaseException], error: BaseException, at: TracebackType | None) -> None:
    """What nobody catches in a worker: not that whoever asked a thread of it for a tensor has gone meanwhile."""
    if not isinstance(error, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, at)


def _end_with_parent() -> None:
    """End when the parent has, also where it died before this process was ready: from then on torch sees none die."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)  # they are the main thread's
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _outlive_signals() -> None:
    """A signal to a whole group of processes is the main one's affair, which needs the rest of its step from here.

    A second SIGTERM ends a worker: that is how one that does not react is shut down for good.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.signal(number, signal.SIG_DFL))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)


@contextmanager
def _signals_waiting() -> Iterator[None]:
    """Let signals wait for as long as workers are started, which inherit that: they let them come when they are ready.

    Before that, torch has a worker end at a SIGTERM that is not its parent's.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_at_exit(batches: Any) -> Callable[[], Any]:
    """Have the workers of an iterator that is there when Python ends, end with it; returns a weak reference to it.

    Registered after torch was imported, this comes before torch takes Python for gone and leaves workers as they are,
    and before `multiprocessing` waits for them: of them, that outlive one SIGTERM, it would wait for ever.
    """

    def end() -> None:
        iterator = alive()
        if iterator is not None:
            iterator._shutdown_workers()

    alive = weakref.ref(batches, lambda _: atexit.unregister(end))
    atexit.register(end)
    return alive


def _nothing() -> None:
    return None


class _Course:
    """The blocks that the workers are to read next: a sampler that is set before each pass."""

    def __init__(self) -> None:
        self.blocks: Iterator[Block] = iter(())

    def __iter__(self) -> Iterator[Block]:
        return self.blocks


class BlockReader:
    """Reads a sequence of blocks, in this process or in workers.

    Args:
        reader: reads one block.
        workers: how many processes read ahead, and how they are started.
    """

    def __init__(self, reader: SampleReader, workers: Workers) -> None:
        self._reader = reader
        self._course = _Course()
        self._loader: DataLoader[Any] | None = None
        self._ended_at_exit: Callable[[], Any] = _nothing
        if workers.is_needed:
            options = dict(workers.options)
            start = _StartWorker(options.pop("worker_init_fn", None)) if workers.num_workers else None
            self._loader = DataLoader(
                _Blocks(reader),
                batch_size=None,
                sampler=self._course,
                collate_fn=_same,
                num_workers=workers.num_workers,
                worker_init_fn=start,
                # an iterator draws a seed for its workers: from nobody else's stream
                generator=torch.Generator().manual_seed(derive(reader.seed, "workers")),
                **options,
            )

    def read(self, blocks: Iterator[Block]) -> Iterator[Any]:
        """The batches of ``blocks`` in order; reading ahead happens in workers only."""
        if self._loader is None:
            return map(self._reader.read, blocks)
        self._course.blocks = blocks
        with _signals_waiting():
            batches = iter(self._loader)
        if self._loader.num_workers and batches is not self._ended_at_exit():
            self._ended_at_exit = _end_at_exit(batches)
        return map(self._received, batches)

    def _received(self, batch: Any) -> Any:
        """A batch that was read elsewhere: its failure, or the one effect that reading it here would have had."""
        if isinstance(batch, WorkerFailure):
            raise batch.error()
        if self._reader.draws:
            forget_spare_normal()
        return batch


class IndexedSource:
    """A data set with known length, read in batches in our order; any batch of any pass is sought directly.

    Args:
        reader: reads the samples.
        batch_size: samples in a batch; None: each sample is a ready batch.
        is_shuffled: whether each pass has an order of its own.
        drop_last: leave out a smaller last batch.
        workers: how many processes read ahead.
        seed: what the order is keyed by, with the pass.
    """

    is_sought = True
    is_one_shot = False

    def __init__(
        self,
        reader: SampleReader,
        *,
        batch_size: int | None,
        is_shuffled: bool,
        drop_last: bool,
        workers: Workers,
        seed: int,
    ) -> None:
        self._num_samples = len(reader.dataset)
        self._blocks = BlockReader(reader, workers)
        self._batch_size = batch_size or 1
        self._is_shuffled = is_shuffled
        self._drop_last = drop_last
        self._seed = seed

    @property
    def num_batches(self) -> int | None:
        """Batches in a pass."""
        return num_batches(self._num_samples, self._batch_size, drop_last=self._drop_last)

    @property
    def facts(self) -> DataFacts:
        """What it was made with."""
        return DataFacts(
            num_samples=self._num_samples,
            batch_size=self._batch_size,
            order="shuffled" if self._is_shuffled else "in order",
            drop_last=bool(self._drop_last),
        )

    def state_dict(self) -> None:
        """None: the position says it all."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Never called, as there is no state."""

    def read(self, pass_index: int, first: int) -> Iterator[Any]:
        """The batches of a pass from number ``first`` on."""
        order = pass_order(self._num_samples, is_shuffled=self._is_shuffled, seed=self._seed, pass_index=pass_index)
        batches = index_batches(order, self._batch_size, first, drop_last=self._drop_last)
        return self._blocks.read((pass_index, indices) for indices in batches)


def _same(batch: Any) -> Any:
    return batch
