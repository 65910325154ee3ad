"""Classes that read the batches of a data set by index, in this process or in worker processes.

A block is a request for one batch: a tuple of the index of a pass, and the keys of the samples in the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from multiprocessing.util import Finalize
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset, default_collate, default_convert, get_worker_info

from loopwright.data.reading.draw_watch import DrawWatch
from loopwright.data.reading.order import index_batches, num_batches, pass_order
from loopwright.data.reading.rows import Rows
from loopwright.data.reading.sample_errors import ReadBatch, WorkerFailure, unreadable
from loopwright.data.reading.share import ALL_ROWS, KeyBlock, Share
from loopwright.data.reading.workers import read_pass, with_workers
from loopwright.errors import DataError
from loopwright.protocols import DataFacts
from loopwright.seeding import SideStreams, derive, forget_spare_normal, sample_seed, seed_host_streams

# These data sets and collate functions run no user code, so they cannot draw random numbers.
_PLAIN_TYPES = (list, tuple, range, TensorDataset)
_PLAIN_COLLATES = (default_collate, default_convert)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """Arguments of torch's `DataLoader` that concern worker processes.

    Args:
        num_workers: number of worker processes; 0: this process reads.
        options: further arguments of `DataLoader` by name, such as ``prefetch_factor`` and ``pin_memory``.
    """

    num_workers: int = 0
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def is_needed(self) -> bool:
        """Whether a `DataLoader` is needed, for its workers or for its thread that pins memory."""
        return self.num_workers > 0 or bool(self.options.get("pin_memory"))


class SampleReader:
    """Reads the samples of a batch and collates them.

    The samples do not depend on the number of workers, on the batch size, or on a resume.

    The attribute ``is_random`` of the data set determines how a sample is read:

    - True: the random generators are seeded by (seed, pass, index) before the sample is read.
    - False: the sample is read without seeding. Reading must draw no random numbers. If the data set has
      ``__getitems__``, this method is called once for all samples of a batch.
    - missing: the sample is read without seeding, and a `DrawWatch` checks each batch. If reading a batch draws random
      numbers or raises an error, the batch is discarded and read again, and the generators are seeded before each of
      its samples. This reader then seeds before every later sample too. Each batch therefore equals the batch that
      would be read with ``is_random`` True. Lists, tuples, ranges and `TensorDataset` draw no random numbers, so they
      are read as if ``is_random`` were False.

    If the data set has ``set_epoch``, it is called with the index of the pass before the first batch of each pass, in
    each process that reads.

    A collate function other than torch's own may draw random numbers, so the generators are seeded by (seed, pass,
    first key of the batch) before it is called.

    Args:
        dataset: an object with ``__getitem__``, and optionally ``is_random`` and ``__getitems__``.
        collate: function that builds a batch from a list of samples, or from one sample if ``is_batched`` is False.
        seed: seed of the run.
        is_batched: True if a block contains the keys of all samples in a batch. False if it contains a single key, for
            which the data set returns a whole batch.
    """

    def __init__(self, dataset: Any, collate: Callable[[Any], Any], *, seed: int, is_batched: bool = True) -> None:
        self.dataset = dataset
        self._collate = collate
        self.seed = seed
        self._is_batched = is_batched
        self._has_epochs = hasattr(dataset, "set_epoch")
        is_random = getattr(dataset, "is_random", None)
        self._reads_seeded = type(dataset) not in _PLAIN_TYPES if is_random is None else is_random
        self._watch = DrawWatch() if is_random is None and self._reads_seeded else None
        self._collates_seeded = collate not in _PLAIN_COLLATES
        self._takes_rows = collate is default_collate
        self._reads_many = is_batched and not self._reads_seeded and hasattr(dataset, "__getitems__")
        self._side = SideStreams(derive(seed, "read"), is_continued=False)
        self._pass_index: int | None = None  # pass of the last `set_epoch`

    @property
    def reads_once(self) -> bool:
        """Whether the data set says that the second read of a sample may differ, by ``is_random = True``."""
        return getattr(self.dataset, "is_random", None) is True

    @property
    def draws(self) -> bool:
        """Whether reading or collating a batch, or ``set_epoch``, may draw random numbers."""
        return self._reads_seeded or self._collates_seeded or self._has_epochs

    def read(self, block: KeyBlock) -> Any:
        """Return one batch, and restore the random generators of this process."""
        if self._has_epochs and block[0] != self._pass_index:
            self._set_epoch(block[0])
        if not self.draws:
            return self._read(block)
        if self._watch is not None:
            return self._read_watched(block, self._watch, self._side)
        with self._side:
            return self._read(block)

    def read_freely(self, block: KeyBlock) -> Any:
        """Return one batch without restoring the random generators, which nothing else uses in a worker process."""
        if self._has_epochs and block[0] != self._pass_index:
            self._set_epoch(block[0])
        if self._watch is not None:
            return self._read_watched(block, self._watch, nullcontext())
        return self._read(block)

    def _set_epoch(self, pass_index: int) -> None:
        with SideStreams(derive(self.seed, "set_epoch", pass_index), is_continued=True):
            self.dataset.set_epoch(pass_index)
        self._pass_index = pass_index

    def _read_watched(self, block: KeyBlock, watch: DrawWatch, side: AbstractContextManager[None]) -> Any:
        """Read a batch without seeding. If this draws random numbers or fails, read it again with each sample seeded.

        Args:
            block: index of the pass, and keys of the batch.
            watch: context manager that detects whether random numbers are drawn.
            side: context manager that saves and restores the random generators around reading with seeding.
        """
        try:
            with watch:
                batch = samples = [self.dataset[index] for index in block[1]]
                if not self._collates_seeded:  # inside the watch: collating may call methods of samples that draw
                    batch = self._collate(samples if self._is_batched else samples[0])
            is_kept = not watch.has_drawn
        except Exception:  # noqa: BLE001  (an error that also occurs with seeding is raised below)
            is_kept = False
        if is_kept and not self._collates_seeded:
            return batch
        with side:
            if is_kept:
                return self._make_batch(block, samples)
            self._watch = None
            return self._read(block)

    def _read(self, block: KeyBlock) -> Any:
        pass_index, indices = block
        if self._reads_many:
            try:
                samples = self.dataset.__getitems__(indices)
            except Exception as error:
                raise unreadable(self.dataset, indices, error) from error
            if self._takes_rows and isinstance(samples, list | Rows) and len(samples) != len(indices):
                counts = f"{len(samples)} samples for {len(indices)} indices"
                raise DataError(f"{type(self.dataset).__name__}: __getitems__ returned {counts}.")
            if self._takes_rows and type(samples) is Rows:
                return samples.batch
        else:
            samples = [self._sample(pass_index, index) for index in indices]
        return self._make_batch(block, samples)

    def _make_batch(self, block: KeyBlock, samples: Any) -> Any:
        pass_index, indices = block
        if self._collates_seeded:
            seed_host_streams(derive(self.seed, "collate", pass_index, repr(indices[:1])))
        try:
            return self._collate(samples if self._is_batched else samples[0])
        except Exception as error:
            raise unreadable(self.dataset, indices, error, "cannot be collated") from error

    def _sample(self, pass_index: int, index: Any) -> Any:
        if self._reads_seeded:
            seed_host_streams(sample_seed(self.seed, pass_index, index))
        try:
            return self.dataset[index]
        except Exception as error:
            raise unreadable(self.dataset, [index], error) from error


class _Blocks(Dataset[Any]):
    """Data set for torch's `DataLoader`: its keys are blocks, and its items are batches."""

    def __init__(self, reader: SampleReader) -> None:
        self._reader = reader

    def __getitem__(self, block: KeyBlock) -> Any:
        if get_worker_info() is None:
            return self._reader.read(block)
        try:
            return ReadBatch(self._reader.read_freely(block), block[1])
        except DataError as error:  # Torch would raise this error with a traceback as its message.
            return WorkerFailure.of(error)


class _BlockSampler:
    """Sampler that yields the items of ``blocks``, which `BlockReader` assigns before each pass."""

    def __init__(self) -> None:
        self.blocks: Iterator[KeyBlock] = iter(())

    def __iter__(self) -> Iterator[KeyBlock]:
        return self.blocks


class BlockReader:
    """Reads a sequence of blocks, in this process or in worker processes.

    Args:
        reader: object that reads the batch of one block.
        workers: number and options of the worker processes.
    """

    def __init__(self, reader: SampleReader, workers: Workers) -> None:
        self._reader = reader
        self._sampler = _BlockSampler()
        self._running: tuple[DataLoader[Any], Finalize[None]] | None = None
        self._loader: DataLoader[Any] | None = None
        if workers.is_needed:
            self._loader = DataLoader(
                _Blocks(reader),
                batch_size=None,
                sampler=self._sampler,
                collate_fn=_same,
                num_workers=workers.num_workers,
                # A `DataLoader` draws a seed for its workers in each pass. This generator is used for these seeds only.
                generator=torch.Generator().manual_seed(derive(reader.seed, "workers")),
                **workers.options,
            )

    def read(self, blocks: Iterator[KeyBlock]) -> Iterator[Any]:
        """Return the batches of ``blocks`` in order. Without workers, each batch is read when it is requested."""
        loader = self._loader
        if loader is None:
            return map(self._reader.read, blocks)
        self._sampler.blocks = blocks
        if not loader.num_workers:
            return map(self._as_if_read_here, iter(loader))
        if not (self._running and loader.persistent_workers and self._running[1].still_active()):
            self._running = with_workers(loader, self._reader.dataset)
        batches = read_pass(*self._running)
        next(batches)  # The first item is None and arrives when the workers have started.
        return map(self._as_if_read_here, batches)

    def _as_if_read_here(self, batch: Any) -> Any:
        """Return ``batch``. If reading may draw random numbers, first discard the normal number that NumPy has cached.

        Reading in this process would discard it too, so results do not depend on the number of workers.
        """
        if self._reader.draws:
            forget_spare_normal()
        return batch


class IndexedSource:
    """Batch source for a data set of known length. Reading can start at any batch of any pass.

    Args:
        reader: reader of the samples.
        batch_size: number of samples in a batch; None: each sample is a batch.
        is_shuffled: True for a different order in each pass, False for the order of the data set.
        drop_last: True to leave out the last batch of a pass if it is smaller than the others.
        workers: number and options of the worker processes.
        seed: seed of the run; the order of a pass is computed from this seed and the index of the pass.
        share: rows of each batch that this process reads.
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
        share: Share = ALL_ROWS,
    ) -> None:
        self._reader = reader
        self._workers = workers
        self._share = share
        self._num_samples = len(reader.dataset)
        self._blocks = BlockReader(reader, workers)
        self._batch_size = batch_size or 1
        self._is_batched = batch_size is not None
        self._is_shuffled = is_shuffled
        self._drop_last = drop_last
        self._seed = seed

    def in_order(self) -> IndexedSource:
        """Return a source that reads all samples in the order of the data set, in batches of the same size."""
        batch_size = self._batch_size if self._is_batched else None
        return IndexedSource(
            self._reader,
            batch_size=batch_size,
            is_shuffled=False,
            drop_last=False,
            workers=self._workers,
            seed=self._seed,
        )

    @property
    def num_batches(self) -> int | None:
        """Number of batches in a pass."""
        return num_batches(self._num_samples, self._batch_size, drop_last=self._drop_last)

    @property
    def max_batches(self) -> int | None:
        """Same as `num_batches`."""
        return self.num_batches

    @property
    def facts(self) -> DataFacts:
        """Number of samples, batch size (1 if each sample is a batch), order of reading, and ``drop_last``."""
        return DataFacts(
            num_samples=self._num_samples,
            batch_size=self._batch_size,
            order="shuffled" if self._is_shuffled else "in order",
            drop_last=bool(self._drop_last),
        )

    def num_samples(self, batch_index: int) -> int | None:
        """Return the number of samples that this process reads of a batch; None if each sample is a batch."""
        rest = self._num_samples - batch_index * self._batch_size
        if self._share.world_size > 1:
            return self._share.num_rows(min(self._batch_size, rest))
        return min(self._batch_size, rest) if self._is_batched else None

    def peek(self) -> tuple[Any] | None:
        """Return a tuple with the first batch of pass 0; None if there is none, or its samples can be read only once.

        If worker processes read the data set, one new worker reads the batch. Workers must not inherit a file that the
        data set opened in this process, when it read its first sample. The shipped data sets are read in this process.
        """
        if not self.num_batches or self._reader.reads_once:
            return None
        order = pass_order(self._num_samples, is_shuffled=self._is_shuffled, seed=self._seed, pass_index=0)
        keys = next(index_batches(order, self._batch_size, 0, drop_last=self._drop_last))
        block = (0, self._share.of(keys) or keys[:1])
        if not self._workers.num_workers or not self._reader.draws:
            return (self._reader.read(block),)
        options = {**self._workers.options, "persistent_workers": False}
        (batch,) = BlockReader(self._reader, Workers(num_workers=1, options=options)).read(iter([block]))
        return (batch,)

    def state_dict(self) -> None:
        """Return None. A resume needs only the indices of the pass and the micro-batch, which the run saves."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do nothing. `state_dict` returns None, so this method is never called."""

    def read(self, pass_index: int, first: int) -> Iterator[Any]:
        """Return the batches of pass ``pass_index``, beginning with batch ``first``; both count from 0."""
        order = pass_order(self._num_samples, is_shuffled=self._is_shuffled, seed=self._seed, pass_index=pass_index)
        batches = index_batches(order, self._batch_size, first, drop_last=self._drop_last)
        blocks = ((pass_index, indices) for indices in batches)
        return self._blocks.read(blocks) if self._share.world_size == 1 else self._share.read(self._blocks.read, blocks)


def _same(batch: Any) -> Any:
    return batch
