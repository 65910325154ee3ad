"""`CutSource` and `EvenSource`, batch sources for several processes and dataloaders without sample indices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from loopwright.data.reading.share import Share, take_rows
from loopwright.protocols import BatchSource, DataFacts, Padding, Ranks


class CutSource:
    """Batch source that reads whole micro-batches from another source, and yields the rows of one process.

    Args:
        source: source of whole micro-batches, which yields equal micro-batches in every process.
        share: rows of this process.
    """

    def __init__(self, source: BatchSource, share: Share) -> None:
        self._source = source
        self._share = share
        self.is_sought = source.is_sought
        self.is_one_shot = source.is_one_shot

    @property
    def num_batches(self) -> int | None:
        """Number of batches in a pass; None if unknown."""
        return self._source.num_batches

    @property
    def max_batches(self) -> int | None:
        """Largest number of batches in a pass; None if unknown."""
        return self._source.max_batches

    @property
    def facts(self) -> DataFacts:
        """Description of the dataloader. The batch size is the size of whole micro-batches."""
        return self._source.facts

    def num_samples(self, batch_index: int) -> None:
        """Return None: unknown. The rows of each batch are counted instead."""

    def read(self, pass_index: int, first: int) -> Iterator[Any]:
        """Yield the rows of this process in each batch of a pass, beginning with batch ``first`` (from 0)."""
        for batch in self._source.read(pass_index, first):
            yield take_rows(batch, self._share)

    def peek(self) -> tuple[Any] | None:
        """Return a tuple with the rows of this process in the first batch; None if this batch cannot be read now."""
        found = self._source.peek()
        return None if found is None else (_without_padding(take_rows(found[0], self._share)),)

    def state_dict(self) -> dict[str, Any] | None:
        """Return the state of ``source``."""
        return self._source.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self._source.load_state_dict(state)


class EvenSource:
    """Batch source for dataloaders that yield different data, and maybe different numbers of batches, in each process.

    A process whose dataloader has ended yields a `Padding` until the dataloaders of all processes have ended. If the
    length of a dataloader is unknown, the processes exchange before each micro-batch whether they have another batch.

    Args:
        source: source of the micro-batches of this process.
        ranks: processes that train together.
    """

    def __init__(self, source: BatchSource, ranks: Ranks) -> None:
        self._source = source
        self._ranks = ranks
        self.is_sought = source.is_sought
        self.is_one_shot = source.is_one_shot
        self._num_batches = _longest(source.num_batches, ranks)
        self._max_batches = _longest(source.max_batches, ranks)

    @property
    def num_batches(self) -> int | None:
        """Largest number of batches in a pass of any process; None if a number is unknown."""
        return self._num_batches

    @property
    def max_batches(self) -> int | None:
        """Largest number of batches that a pass of any process can have; None if a number is unknown."""
        return self._max_batches

    @property
    def facts(self) -> DataFacts:
        """Description of the dataloader of this process."""
        return self._source.facts

    def num_samples(self, batch_index: int) -> int | None:
        """Return the number of samples in a batch of this process; None if unknown."""
        return self._source.num_samples(batch_index)

    def read(self, pass_index: int, first: int) -> Iterator[Any]:
        """Yield the batches of a pass, beginning with batch ``first`` (from 0)."""
        num_own = self._source.num_batches
        is_ended = num_own is not None and first >= num_own
        batches = iter(()) if is_ended else self._source.read(pass_index, first)
        index, last, end = first, None, object()
        while self._num_batches is None or index < self._num_batches:
            batch = next(batches, end)
            if self._num_batches is None and not self._some_rank_has(batch is not end):
                return
            if batch is not end:
                last = batch
            yield Padding(last) if batch is end else batch
            index += 1

    def peek(self) -> tuple[Any] | None:
        """Return a tuple with the first batch of this process; None if this batch cannot be read now."""
        return self._source.peek()

    def state_dict(self) -> dict[str, Any] | None:
        """Return the state of the dataloader of this process."""
        return self._source.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self._source.load_state_dict(state)

    def _some_rank_has(self, is_here: bool) -> bool:
        return b"1" in self._ranks.gather_bytes(b"1" if is_here else b"0")


def _longest(length: int | None, ranks: Ranks) -> int | None:
    lengths = [each.decode() for each in ranks.gather_bytes(b"" if length is None else str(length).encode())]
    return max(map(int, lengths)) if all(lengths) else None


def _without_padding(batch: Any) -> Any:
    return batch.batch if isinstance(batch, Padding) else batch
