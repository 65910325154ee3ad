"""`as_source`: any dataloader as the engine reads it."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from typing import Any

from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, SequentialSampler

from loopwright.data.loader import Loader
from loopwright.data.reading import Block, BlockReader, IndexedSource, SampleReader, Workers
from loopwright.errors import DataError, refuse_type
from loopwright.protocols import BatchSource
from loopwright.seeding import RandomStreams, derive

_log = logging.getLogger("loopwright")

# Batches of indices that a sampler is asked for at a time: swapping random streams costs more than an index.
_NUM_BATCHES_AHEAD = 64


def as_source(dataloader: Any, seed: int) -> BatchSource:
    """Make any dataloader readable from any micro-batch of any pass.

    Our own `Loader`, and a plain `torch.utils.data.DataLoader` over a plain sampler, are read in our order, which is
    sought. With another sampler its indices are kept and skipped, not the data. A subclass, or any other iterable, is
    used as it is and read forward, under streams of its own that are keyed by (seed, pass).

    Args:
        dataloader: anything iterable.
        seed: of the run.

    Raises:
        SettingTypeError: if ``dataloader`` cannot be iterated over.
    """
    if isinstance(dataloader, Loader):
        return dataloader.source(seed)
    if type(dataloader) is DataLoader and not isinstance(dataloader.dataset, IterableDataset):
        return _torch_source(dataloader, seed)
    if not hasattr(dataloader, "__iter__"):
        raise refuse_type("dataloader", dataloader, "an iterable of batches")
    return ForeignSource(dataloader, seed)


def _torch_source(loader: DataLoader[Any], seed: int) -> BatchSource:
    reader = SampleReader(loader.dataset, loader.collate_fn, seed=seed, is_batched=loader.batch_sampler is not None)
    workers = Workers(num_workers=loader.num_workers, options=_worker_options(loader))
    sampler: Any = loader.sampler
    batch_sampler: Any = loader.batch_sampler
    is_plain = (type(batch_sampler) is BatchSampler and batch_sampler.sampler is sampler) or batch_sampler is None
    if is_plain and _is_plain_sampler(sampler, loader.dataset):
        generator = getattr(sampler, "generator", None)
        return IndexedSource(
            reader,
            batch_size=None if batch_sampler is None else batch_sampler.batch_size,
            is_shuffled=type(sampler) is RandomSampler,
            drop_last=batch_sampler is not None and batch_sampler.drop_last,
            workers=workers,
            seed=seed if generator is None else derive(seed, generator.initial_seed()),
        )
    return SampledSource(reader, sampler if batch_sampler is None else batch_sampler, workers, seed)


def _is_plain_sampler(sampler: Any, dataset: Any) -> bool:
    if getattr(sampler, "data_source", None) is not dataset:
        return False
    if type(sampler) is SequentialSampler:
        return True
    # _num_samples is None where num_samples was not given; the public property then is the data set's length
    return type(sampler) is RandomSampler and not sampler.replacement and sampler._num_samples is None


def _worker_options(loader: DataLoader[Any]) -> dict[str, Any]:
    options: dict[str, Any] = {"pin_memory": loader.pin_memory}
    if loader.num_workers > 0:
        options |= {
            "timeout": loader.timeout,
            "worker_init_fn": loader.worker_init_fn,
            "multiprocessing_context": loader.multiprocessing_context,
            "prefetch_factor": loader.prefetch_factor,
            "persistent_workers": loader.persistent_workers,
        }
    return options


class SampledSource:
    """A data set read in the order of a sampler of the user's, whose indices are skipped and not the data.

    The sampler draws from streams keyed by (seed, pass), so its order can be asked for again. One with a
    ``set_epoch`` is told the pass.

    Args:
        reader: reads the samples.
        sampler: yields indices, or lists of them where batches are made.
        workers: how many processes read ahead.
        seed: of the run.
    """

    is_sought = True

    def __init__(self, reader: SampleReader, sampler: Any, workers: Workers, seed: int) -> None:
        self._blocks = BlockReader(reader, workers)
        self._sampler = sampler
        self._seed = seed

    @property
    def num_batches(self) -> int | None:
        """Batches in a pass, where the sampler knows."""
        return _length(self._sampler)

    def read(self, pass_index: int, first: int) -> Iterator[Any]:
        """The batches of a pass from number ``first`` on."""
        return self._blocks.read(itertools.islice(self._indices(pass_index), first, None))

    def _indices(self, pass_index: int) -> Iterator[Block]:
        streams = RandomStreams(derive(self._seed, "sampler", pass_index))
        with streams.active():
            _tell_pass(self._sampler, pass_index)
            drawn = iter(self._sampler)
        while True:
            with streams.active():
                ahead = list(itertools.islice(drawn, _NUM_BATCHES_AHEAD))
            if not ahead:
                return
            for indices in ahead:
                yield pass_index, indices if isinstance(indices, list) else [indices]


class ForeignSource:
    """Any other iterable: used as it is, read forward to where a run is.

    What it draws in this process comes from streams keyed by (seed, pass).

    Args:
        dataloader: the iterable; one with a ``set_epoch`` is told the pass.
        seed: of the run.
    """

    is_sought = False

    def __init__(self, dataloader: Any, seed: int) -> None:
        self._dataloader = dataloader
        self._seed = seed
        self._draws_here = type(dataloader) not in (list, tuple) and not getattr(dataloader, "num_workers", 0)

    @property
    def num_batches(self) -> int | None:
        """Batches in a pass, where the dataloader knows."""
        return _length(self._dataloader)

    def read(self, pass_index: int, first: int) -> Iterator[Any]:
        """The batches of a pass from number ``first`` on; those before it are read and dropped."""
        streams = RandomStreams(derive(self._seed, "data", pass_index))
        with streams.active():
            _tell_pass(self._dataloader, pass_index)
            batches = iter(self._dataloader)
            if first:
                num_skipped = sum(1 for _ in itertools.islice(batches, first))
                _log.warning("Read over %d micro-batches of the training dataloader to go on where it was.", first)
                if num_skipped < first:
                    raise DataError(
                        f"The dataloader ended after {num_skipped} micro-batches; {first} were read before."
                    )
        return _under(streams, batches) if self._draws_here else batches


def _under(streams: RandomStreams, batches: Iterator[Any]) -> Iterator[Any]:
    end = object()
    while True:
        with streams.active():
            batch = next(batches, end)
        if batch is end:
            return
        yield batch


def _tell_pass(dataloader: Any, pass_index: int) -> None:
    for part in (dataloader, getattr(dataloader, "batch_sampler", None), getattr(dataloader, "sampler", None)):
        set_epoch = getattr(part, "set_epoch", None)
        if set_epoch is not None:
            set_epoch(pass_index)


def _length(dataloader: Any) -> int | None:
    try:
        return len(dataloader)
    except (TypeError, NotImplementedError):
        return None
