"""`Loader`: our own dataloader, which describes how a data set is read in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import default_collate

from loopwright.data.reading.indexed import IndexedSource, SampleReader, Workers
from loopwright.data.reading.order import num_batches
from loopwright.errors import check_count, refuse_type


class Loader:
    """Reads a data set of known length in batches. The trainer may start at any batch of any pass.

    The order of a pass is a permutation that depends on the run's seed and the pass, but not on workers. For more than
    2**20 samples it is computed while it is read, and never held in memory.

    A data set with ``is_random = False`` promises that reading it draws no random numbers. It is read as it is, in
    whole batches if it has ``__getitems__``. For each sample of any other data set, random generators are seeded by
    (seed, pass, index), also in workers. Iterating over a `Loader` directly reads pass 0 with seed 0.

    Args:
        dataset: object with ``__len__`` and ``__getitem__``.
        batch_size: number of samples in a (global) micro-batch; the last one of a pass may be smaller.
        shuffle: whether each pass has its own random order.
        num_workers: number of processes that read ahead; 0: the main process reads. The batches are the same.
        drop_last: whether a smaller last batch is left out.
        collate_fn: function that makes a batch of a list of samples.

    Raises:
        SettingError: for invalid counts, and for a data set without ``__len__`` or ``__getitem__``.
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
