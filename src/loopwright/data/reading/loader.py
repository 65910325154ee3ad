"""`Loader`: our own dataloader, which describes how a data set is read in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import default_collate

from loopwright.data.reading.indexed import IndexedSource, SampleReader, Workers
from loopwright.data.reading.order import num_batches
from loopwright.errors import check_count, refuse_type


class Loader:
    """Reads a data set with known length in batches. The trainer can start at any batch of any pass.

    The order of a pass is a permutation keyed by (seed of the run, pass), independent of workers. For more than 2**20
    samples it is computed while it is read and never held in memory. Iterating over the loader directly reads pass 0
    with seed 0.

    A sample that draws from the global random streams of Python, NumPy or torch draws the same numbers with any number
    of workers, any batch size, and after a resume, because it is read under streams seeded by (seed, pass, index). The
    attribute ``is_random`` of the data set says whether samples are seeded:

    - missing: a batch is first read without seeding. If that draws random numbers or raises an error, the batch is
      discarded and read again with each sample seeded, and the same process then seeds every sample that it reads.
    - ``True``: every sample is seeded, and no sample is read twice. This is required if a read cannot be repeated (a
      queue, a counter, a cursor, a cache of random samples), and if a read hides its draws: it restores the state of
      a stream, as `torch.random.fork_rng` does, or seeds a generator by `torch.initial_seed`. If reads are
      expensive, it saves the second reading of a batch.
    - ``False``: no sample is seeded. The data set promises that reading draws no random numbers. Batches are read by
      ``__getitems__`` if the data set has that method.

    A wrapper such as `torch.utils.data.Subset` does not pass the attribute on. Random generators that a data set holds
    itself are neither seeded nor saved.

    Args:
        dataset: an object with ``__len__`` and ``__getitem__``.
        batch_size: samples in a (global) micro-batch. The last batch of a pass may be smaller.
        shuffle: whether each pass has its own order.
        num_workers: worker processes that read ahead. With 0, this process reads. The batches are the same.
        drop_last: whether to leave out a smaller last batch.
        collate_fn: function that makes a batch of a list of samples. If it is not torch's own, it is seeded by (seed,
            pass, first index of the batch).

    Raises:
        SettingError: if a count is invalid, or the data set has no length.
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
        if isinstance(num_workers, bool) or not isinstance(num_workers, int) or num_workers < 0:
            raise refuse_type("num_workers", num_workers, "a whole number, 0 or more")
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
        """Number of processes that read ahead."""
        return self._workers.num_workers

    def __len__(self) -> int:
        """Return the number of batches in a pass."""
        return num_batches(len(self._dataset), self._batch_size, drop_last=self._drop_last)

    def __iter__(self) -> Iterator[Any]:
        """Read the batches of pass 0 with seed 0."""
        return self.source(seed=0).read(0, 0)

    def source(self, seed: int) -> IndexedSource:
        """Return the source from which the engine reads batches, for a run with ``seed``."""
        return IndexedSource(
            SampleReader(self._dataset, self._collate_fn, seed=seed),
            batch_size=self._batch_size,
            is_shuffled=self._is_shuffled,
            drop_last=self._drop_last,
            workers=self._workers,
            seed=seed,
        )
