"""`Loader`, the dataloader of this package, which reads a data set of known length in batches."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import default_collate

from loopwright.data.reading.indexed import IndexedSource, SampleReader, Workers
from loopwright.data.reading.order import num_batches
from loopwright.data.reading.share import ALL_ROWS, Share
from loopwright.errors import check_count, refuse_type

MAX_WORKERS = max(1_024, os.cpu_count() or 1)  # more processes would end on any machine in an error of the system


class Loader:
    """Reads a data set of known length in batches. The trainer can start to read at any batch of any pass.

    With ``shuffle``, the order of a pass is a permutation that depends on the run's seed and the index of the pass, but
    not on the number of workers. For more than 2**20 samples, the permutation is computed in slices during the pass,
    and is never in memory as a whole. Iterating over a `Loader` directly reads pass 0 with seed 0.

    Reading a sample may draw random numbers from the global generators of Python, NumPy or torch. These numbers do not
    depend on the number of workers, the batch size or a resume, because the generators are seeded with (seed, pass,
    index) before the sample is read. The attribute ``is_random`` of the data set determines when this is done:

    - missing: a batch is first read without seeding. If this read draws random numbers or raises an error, the batch is
      discarded and read again, with seeding before each sample. The same process then seeds before every later sample.
    - ``True``: the generators are seeded before every sample, and no sample is read twice. This value is required if
      the second read of a sample would differ (a queue, a counter, a cursor, a cache of random samples). It is also
      required if draws cannot be detected: if a read restores the state of a generator, as `torch.random.fork_rng`
      does, or seeds its own generator with `torch.initial_seed`. This value also saves time if reads are expensive.
    - ``False``: the generators are never seeded before a sample. Reading must draw no random numbers. Whole
      batches are read by ``__getitems__`` if the data set has this method.

    A wrapper such as `torch.utils.data.Subset` does not have the ``is_random`` of the data set that it wraps. A random
    generator that is an attribute of the data set is neither seeded nor saved.

    Args:
        dataset: object with ``__len__`` and ``__getitem__``.
        batch_size: number of samples in a micro-batch, over all training processes; the last micro-batch of a pass may
            be smaller.
        shuffle: whether each pass has its own random order; otherwise the order of the data set is used.
        num_workers: number of dataloader worker processes; 0: the main process reads. The batches do not
            depend on this number.
        drop_last: whether the last batch of a pass is left out if it is smaller than the others.
        collate_fn: function that builds a batch from a list of samples. A function other than torch's own is called
            with generators seeded with (seed, pass, first index of the batch).

    Raises:
        SettingError: if ``batch_size`` or ``num_workers`` is invalid, such as more workers than any machine has CPUs.
            Also if the data set lacks ``__len__`` or ``__getitem__``.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        num_workers: int = 0,
        drop_last: bool = False,
        collate_fn: Callable[[Any], Any] = default_collate,
    ) -> None:
        if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
            raise refuse_type("dataset", dataset, "an object with __len__ and __getitem__")
        num_workers = check_count("num_workers", num_workers, least=0, most=MAX_WORKERS)
        self._dataset = dataset
        self._batch_size = check_count("batch_size", batch_size)
        self._is_shuffled = shuffle
        self._workers = Workers(num_workers=num_workers)
        self._drop_last = drop_last
        self._collate_fn = collate_fn

    @property
    def dataset(self) -> Any:
        """The data set that is read."""
        return self._dataset

    @property
    def batch_size(self) -> int:
        """Number of samples in a micro-batch."""
        return self._batch_size

    @property
    def num_workers(self) -> int:
        """Number of dataloader worker processes."""
        return self._workers.num_workers

    def __len__(self) -> int:
        """Return the number of batches in a pass."""
        return num_batches(len(self._dataset), self._batch_size, drop_last=self._drop_last)

    def __iter__(self) -> Iterator[Any]:
        """Read the batches of pass 0 with seed 0."""
        return self.source(seed=0).read(0, 0)

    def source(self, seed: int, share: Share = ALL_ROWS) -> IndexedSource:
        """Return the source from which the engine reads the batches of a run with this seed.

        Args:
            seed: seed of the run.
            share: rows of each batch that this process reads.
        """
        return IndexedSource(
            SampleReader(self._dataset, self._collate_fn, seed=seed),
            batch_size=self._batch_size,
            is_shuffled=self._is_shuffled,
            drop_last=self._drop_last,
            workers=self._workers,
            seed=seed,
            share=share,
        )
