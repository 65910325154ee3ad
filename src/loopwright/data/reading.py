"""Reading batches by index, here or in worker processes, with the same result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch.utils.data import DataLoader, Dataset, TensorDataset, default_collate, get_worker_info

from loopwright.data.order import index_batches, num_batches, pass_order
from loopwright.data.rows import Rows
from loopwright.seeding import capture, restore, sample_seed, seed_host_streams

# Reading these runs no code of a user's, so it cannot draw random numbers.
_PLAIN_TYPES = (list, tuple, range, TensorDataset)

# (pass, indices of one batch)
Block = tuple[int, list[int]]


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
        self._seed = seed
        self._is_batched = is_batched
        self._is_random = getattr(dataset, "is_random", type(dataset) not in _PLAIN_TYPES)
        self._takes_rows = collate is default_collate
        self._reads_many = is_batched and not self._is_random and hasattr(dataset, "__getitems__")

    def read(self, block: Block) -> Any:
        """One batch, leaving the streams of this process as they were."""
        if not self._is_random:
            return self.read_freely(block)
        kept = capture()
        try:
            return self.read_freely(block)
        finally:
            restore(kept)

    def read_freely(self, block: Block) -> Any:
        """One batch; streams are left as the last sample left them, as nobody else uses those of a worker."""
        pass_index, indices = block
        dataset = self.dataset
        if self._reads_many:
            rows = dataset.__getitems__(indices)
            return rows.batch if self._takes_rows and type(rows) is Rows else self._collate(rows)
        if not self._is_batched:
            return self._collate(self._sample(pass_index, indices[0]))
        if self._is_random:
            return self._collate([self._sample(pass_index, index) for index in indices])
        return self._collate([dataset[index] for index in indices])

    def _sample(self, pass_index: int, index: int) -> Any:
        if self._is_random:
            seed_host_streams(sample_seed(self._seed, pass_index, index))
        return self.dataset[index]


class _Blocks(Dataset[Any]):
    """A data set whose samples are ready batches, addressed by blocks; torch's `DataLoader` reads it."""

    def __init__(self, reader: SampleReader) -> None:
        self._reader = reader

    def __getitem__(self, block: Block) -> Any:
        return self._reader.read(block) if get_worker_info() is None else self._reader.read_freely(block)


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
        if workers.is_needed:
            self._loader = DataLoader(
                _Blocks(reader),
                batch_size=None,
                sampler=self._course,
                collate_fn=_same,
                num_workers=workers.num_workers,
                **workers.options,
            )

    def read(self, blocks: Iterator[Block]) -> Iterator[Any]:
        """The batches of ``blocks`` in order; reading ahead happens in workers only."""
        if self._loader is None:
            return map(self._reader.read, blocks)
        self._course.blocks = blocks
        kept = capture()  # an iterator over workers draws a seed from torch's global stream
        try:
            return iter(self._loader)
        finally:
            restore(kept)


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

    def read(self, pass_index: int, first: int) -> Iterator[Any]:
        """The batches of a pass from number ``first`` on."""
        order = pass_order(self._num_samples, is_shuffled=self._is_shuffled, seed=self._seed, pass_index=pass_index)
        batches = index_batches(order, self._batch_size, first, drop_last=self._drop_last)
        return self._blocks.read((pass_index, indices) for indices in batches)


def _same(batch: Any) -> Any:
    return batch
