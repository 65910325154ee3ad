"""`as_source`, which wraps any dataloader in a source from which the engine reads batches."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, SequentialSampler

from loopwright.data.reading.generators import PassGenerators
from loopwright.data.reading.indexed import IndexedSource, SampleReader, Workers
from loopwright.data.reading.loader import Loader
from loopwright.data.reading.sampled import SampledSource, length_of, tell_pass
from loopwright.data.reading.share import ALL_ROWS, Share
from loopwright.data.reading.shared_sources import CutSource, EvenSource
from loopwright.data.reading.workers import read_pass, with_workers
from loopwright.errors import DataError, refuse_type
from loopwright.protocols import BatchSource, DataFacts, Ranks
from loopwright.seeding import SideStreams, derive

_log = logging.getLogger("loopwright")


def as_source(dataloader: Any, seed: int, name: str = "dataloader", ranks: Ranks | None = None) -> BatchSource:
    """Return a batch source that can start to read a dataloader at any micro-batch of any pass.

    - A `Loader`, and a `torch.utils.data.DataLoader` (no subclass) with torch's sequential or random sampler, are read
      in an order that this package computes. Reading starts directly at the requested micro-batch.
    - A `torch.utils.data.DataLoader` with another sampler is read in the sampler's order. To start at a later
      micro-batch, the indices before it are skipped without reading their samples.
    - A list or tuple of batches is read directly from the requested micro-batch.
    - A `DataLoader` with an `IterableDataset`, a subclass of `DataLoader`, or any other iterable is used without
      changes. To start at a later micro-batch, the state of the iterable is loaded, or earlier micro-batches are read
      and dropped. The random numbers that the iterable draws depend only on (seed, pass).

    If several processes train together, each process gets its rows of every micro-batch. The last kind of dataloader is
    an exception: it must divide its data over the processes itself. It may have more micro-batches in one process than
    in another.

    Args:
        dataloader: any iterable of batches.
        seed: seed of the run.
        name: name of the argument in the error message.
        ranks: processes that train together; None: this process reads all rows.

    Raises:
        SettingTypeError: if ``dataloader`` is not iterable.
    """
    is_shared = ranks is not None and ranks.world_size > 1
    share = Share(ranks.rank, ranks.world_size) if ranks is not None and is_shared else ALL_ROWS
    if isinstance(dataloader, Loader):
        return dataloader.source(seed, share)
    if type(dataloader) is DataLoader and not isinstance(dataloader.dataset, IterableDataset):
        if is_shared and dataloader.batch_sampler is None:
            return CutSource(_torch_source(dataloader, seed, ALL_ROWS), share)
        return _torch_source(dataloader, seed, share)
    if isinstance(dataloader, list | tuple):
        return CutSource(ListSource(dataloader), share) if is_shared else ListSource(dataloader)
    if not hasattr(dataloader, "__iter__"):
        raise refuse_type(name, dataloader, "an iterable of batches")
    source = ForeignSource(dataloader, seed)
    return EvenSource(source, ranks) if ranks is not None and is_shared else source


def as_ordered_source(dataloader: Any, seed: int, name: str = "dataloader") -> BatchSource:
    """Return a batch source, as `as_source` does, but one that reads all samples in order where this is possible.

    A `Loader`, and a `torch.utils.data.DataLoader` with torch's sequential or random sampler, are read in the order of
    their data set, with an incomplete last batch. Other dataloaders are read in their own order.

    Raises:
        SettingTypeError: if ``dataloader`` is not iterable.
    """
    source = as_source(dataloader, seed, name)
    return source.in_order() if isinstance(source, IndexedSource) else source


def _torch_source(loader: DataLoader[Any], seed: int, share: Share) -> BatchSource:
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
            share=share,
        )
    is_batched = batch_sampler is not None
    chosen = batch_sampler if is_batched else sampler
    facts = _facts_of(loader)
    return SampledSource(reader, chosen, is_batched=is_batched, workers=workers, seed=seed, facts=facts, share=share)


def _facts_of(dataloader: Any) -> DataFacts:
    """Return the known settings of a torch dataloader, or no settings for another iterable."""
    if not isinstance(dataloader, DataLoader):
        return DataFacts()
    is_read_along = isinstance(dataloader.dataset, IterableDataset)
    batch_sampler: Any = dataloader.batch_sampler
    is_own_cut = batch_sampler is not None and type(batch_sampler) is not BatchSampler
    sampler = batch_sampler if is_own_cut else getattr(batch_sampler, "sampler", dataloader.sampler)
    batch_size = getattr(batch_sampler, "batch_size", dataloader.batch_size)
    return DataFacts(
        num_samples=length_of(dataloader.dataset),
        batch_size=batch_size if isinstance(batch_size, int) else None,
        order=None if is_read_along else type(sampler).__name__,
        drop_last=None if is_own_cut else getattr(batch_sampler, "drop_last", dataloader.drop_last),
    )


def _is_plain_sampler(sampler: Any, dataset: Any) -> bool:
    if getattr(sampler, "data_source", None) is not dataset:
        return False
    if type(sampler) is SequentialSampler:
        return True
    is_complete = type(sampler) is RandomSampler and sampler.num_samples == len(sampler.data_source)
    return is_complete and not sampler.replacement


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


class ListSource:
    """Batch source for a list or tuple of batches.

    Args:
        batches: batches that each pass reads in order.
    """

    is_sought = True
    is_one_shot = False

    def __init__(self, batches: Sequence[Any]) -> None:
        self._batches = batches

    @property
    def num_batches(self) -> int | None:
        """Number of batches in a pass."""
        return len(self._batches)

    @property
    def max_batches(self) -> int | None:
        """Same as `num_batches`."""
        return self.num_batches

    @property
    def facts(self) -> DataFacts:
        """No known properties, because a list does not record how its batches were built."""
        return DataFacts()

    def num_samples(self, batch_index: int) -> None:
        """Return None, because it is unknown how the batches are made."""

    def peek(self) -> tuple[Any] | None:
        """Return a tuple with the first batch; None if the list is empty."""
        return (self._batches[0],) if self._batches else None

    def state_dict(self) -> None:
        """Return None. A resume needs only the indices of the pass and the micro-batch, which the run saves."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do nothing. This is not called, because there is no state."""

    def read(self, pass_index: int, first: int) -> Iterator[Any]:
        """Return the batches from batch ``first`` (from 0) on. Every pass has the same batches."""
        return iter(self._batches[first:])


class ForeignSource:
    """Batch source for an iterable that cannot be read by index.

    To resume inside a pass, the state of the iterable is loaded, or batches are read and dropped.

    Random numbers that the iterable draws in this process depend only on (seed, pass). For a `DataLoader` or a subclass
    of it, this also applies to random numbers from its ``generator`` and from the ``generator`` of its samplers. New
    workers are started for each pass, even with ``persistent_workers``. Workers of earlier passes would have a random
    state that a resumed run cannot restore.

    Args:
        dataloader: iterable of batches. If it has ``set_epoch``, this method is called with the index of each pass. If
            it has ``state_dict`` and ``load_state_dict``, these methods are used to resume inside a pass.
        seed: seed of the run.
    """

    is_sought = False

    def __init__(self, dataloader: Any, seed: int) -> None:
        self._dataloader = dataloader
        self._seed = seed
        self._draws_here = not getattr(dataloader, "num_workers", 0)
        self._streams: SideStreams | None = None
        self._restored: dict[str, Any] | None = None

    @property
    def is_one_shot(self) -> bool:
        """Whether the iterable is an iterator, which can be read only once."""
        return isinstance(self._dataloader, Iterator)

    @property
    def num_batches(self) -> int | None:
        """Number of batches in a pass; None if the dataloader has no length, or only a guess of torch's."""
        return None if _is_guessed(self._dataloader) else length_of(self._dataloader)

    @property
    def max_batches(self) -> int | None:
        """Largest number of batches in a pass: the length, and a smaller last batch of each further worker."""
        length = length_of(self._dataloader)
        return (
            length + self._dataloader.num_workers - 1
            if length is not None and _is_guessed(self._dataloader)
            else length
        )

    @property
    def facts(self) -> DataFacts:
        """Known settings of the dataloader."""
        return _facts_of(self._dataloader)

    def num_samples(self, batch_index: int) -> None:
        """Return None, because it is unknown how the batches are made."""

    def peek(self) -> None:
        """Return None, because an iterable may not return the same batch again."""

    def state_dict(self) -> dict[str, Any] | None:
        """Return the states of the dataloader and its random generators; None if it has no ``state_dict``."""
        if not (hasattr(self._dataloader, "state_dict") and hasattr(self._dataloader, "load_state_dict")):
            return None
        streams = None if self._streams is None else self._streams.state_dict()
        return {"dataloader": self._dataloader.state_dict(), "streams": streams}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Store a state that `state_dict` returned. The next call of `read` loads this state into the dataloader."""
        self._restored = state

    def read(self, pass_index: int, first: int) -> Iterator[Any]:
        """Return the batches of a pass from batch ``first`` on.

        If no state was loaded, the earlier batches are read and dropped.
        """
        streams = self._streams = SideStreams(derive(self._seed, "data", pass_index), is_continued=True)
        restored, self._restored = self._restored, None
        if restored is not None and first and restored["streams"] is not None:
            streams.load_state_dict(restored["streams"])
        with streams:
            tell_pass(self._dataloader, pass_index)
            generators = PassGenerators(_parts_of(self._dataloader), self._seed, pass_index)
        with streams, generators:
            if restored is not None:
                self._dataloader.load_state_dict(restored["dataloader"])
            batches = _begin(self._dataloader)
            if first and restored is None:
                _skip(batches, first)
        return _under(streams if self._draws_here else nullcontext(), generators, batches)


def _begin(dataloader: Any) -> Iterator[Any]:
    """Start a pass and return its batches. A `DataLoader` with workers starts new workers."""
    if not isinstance(dataloader, DataLoader) or not dataloader.num_workers:
        return iter(dataloader)
    if type(dataloader).__iter__ is not DataLoader.__iter__:
        if dataloader.persistent_workers:
            dataloader._iterator = None  # Private attribute: no public call starts new workers.
        return iter(dataloader)
    copied, end = with_workers(dataloader, dataloader.dataset)
    vars(copied)["persistent_workers"] = False  # `DataLoader` refuses to set this attribute.
    batches = read_pass(copied, end)
    next(batches)  # The first item is None and arrives when the workers have started.
    return batches


def _is_guessed(dataloader: Any) -> bool:
    """Return whether torch computes the length of a dataloader as if one worker read all samples.

    Each worker of an iterable data set fills batches of its own, so a pass may end with several smaller batches.
    """
    if not isinstance(dataloader, DataLoader) or not isinstance(dataloader.dataset, IterableDataset):
        return False
    batch_size, num_samples = dataloader.batch_size or 1, length_of(dataloader.dataset)
    return (
        batch_size > 1
        and num_samples is not None
        and num_samples % (batch_size * max(1, dataloader.num_workers)) > 0
        and dataloader.num_workers > 1
    )


def _parts_of(dataloader: Any) -> list[Any]:
    """Return a torch dataloader and its samplers; an empty list for other iterables."""
    if not isinstance(dataloader, DataLoader):
        return []
    batch_sampler = dataloader.batch_sampler
    return [dataloader, dataloader.sampler, batch_sampler, getattr(batch_sampler, "sampler", None)]


def _skip(batches: Iterator[Any], num_batches: int) -> None:
    num_skipped = sum(1 for _ in itertools.islice(batches, num_batches))
    _log.warning("Read and dropped %d micro-batches of the training dataloader, to resume after them.", num_batches)
    if num_skipped < num_batches:
        problem = f"ended after {num_skipped} micro-batches; expected at least {num_batches}, as in the resumed run"
        raise DataError(f"The dataloader {problem}.")


def _under(streams: AbstractContextManager[None], generators: PassGenerators, batches: Iterator[Any]) -> Iterator[Any]:
    end = object()
    while True:
        with streams, generators:
            batch = next(batches, end)
        if batch is end:
            return
        yield batch
