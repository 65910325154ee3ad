"""`Loader`: our own dataloader, a description of how a data set is read in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import default_collate

from loopwright.data.reading.indexed import IndexedSource, SampleReader, Workers
from loopwright.data.reading.order import num_batches
from loopwright.errors import check_count, refuse_type


class Loader:
    """Reads a data set with known length in batches; the trainer may begin anywhere, in any pass.

    The order of a pass is a permutation keyed by (seed of the run, pass), independent of workers; that of more than
    2**20 samples is computed as it is read, and never held. A data set with ``is_random = False`` promises that reading
    it draws no random numbers, and is read as it is, by whole batches where it has ``__getitems__``; every other is
    read under streams seeded by (seed, pass, index), in workers too. Iterating over it directly reads pass 0 with
    seed 0.

    Args:
        dataset: has ``__len__`` and ``__getitem__``.
        batch_size: samples in a (global) micro-batch; the last one of a pass may be smaller.
        shuffle: whether each pass has an order of its own.
        num_workers: processes that read ahead; 0 reads in this one. The batches are the same.
        drop_last: leave out a smaller last batch.
        collate_fn: makes a batch of a list of samples.

    Raises:
        SettingError: for counts that are none, and a data set without a length.
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
        """What is read."""
        return self._dataset

    @property
    def batch_size(self) -> int:
        """Samples in a micro-batch."""
        return self._batch_size

    @property
    def num_workers(self) -> int:
        """Processes that read ahead."""
        return self._workers.num_workers

    def __len__(self) -> int:
        """Batches in a pass."""
        return num_batches(len(self._dataset), self._batch_size, drop_last=self._drop_last)

    def __iter__(self) -> Iterator[Any]:
        """The batches of pass 0, with seed 0."""
        return self.source(seed=0).read(0, 0)

    def source(self, seed: int) -> IndexedSource:
        """This loader as the engine reads it, for a run with ``seed``."""
        return IndexedSource(
            SampleReader(self._dataset, self._collate_fn, seed=seed),
            batch_size=self._batch_size,
            is_shuffled=self._is_shuffled,
            drop_last=self._drop_last,
            workers=self._workers,
            seed=seed,
        )
