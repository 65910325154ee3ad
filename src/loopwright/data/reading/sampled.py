"""`SampledSource`: a data set in the order of a sampler of the user's."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from typing import Any

from loopwright.data.reading.generators import PassGenerators
from loopwright.data.reading.indexed import Block, BlockReader, SampleReader, Workers
from loopwright.protocols import DataFacts
from loopwright.seeding import SideStreams, derive

# Batches of indices that a sampler is asked for at a time: swapping random streams costs more than an index.
_NUM_BATCHES_AHEAD = 64

# Batches of indices that are kept for a pause: more than can have been asked for and not be read yet.
_NUM_BATCHES_KEPT = 1024


class SampledSource:
    """A data set read in the order of a sampler of the user's, whose indices are skipped and not the data.

    The sampler draws from streams keyed by (seed, pass), and so does a `torch.Generator` that it has as ``generator``:
    its order can be asked for again. A sampler that keeps random numbers of another kind goes on inside a pass within
    one process, but a new process cannot ask it for the same order. One with a ``set_epoch`` is told the pass. Indices
    are asked for up to 64 batches ahead.

    Args:
        reader: reads the samples.
        sampler: yields the keys of batches, or of samples that are ready batches.
        is_batched: whether it yields the keys of batches.
        workers: how many processes read ahead.
        seed: of the run.
        facts: what is known of the dataloader.
    """

    is_sought = True
    is_one_shot = False

    def __init__(
        self, reader: SampleReader, sampler: Any, *, is_batched: bool, workers: Workers, seed: int, facts: DataFacts
    ) -> None:
        self._blocks = BlockReader(reader, workers)
        self._sampler = sampler
        self._is_batched = is_batched
        self._seed = seed
        self._facts = facts
        self._pass = _DrawnPass(0, iter(()))

    @property
    def num_batches(self) -> int | None:
        """Batches in a pass, where the sampler knows."""
        return length_of(self._sampler)

    @property
    def facts(self) -> DataFacts:
        """What is known of the dataloader."""
        return self._facts

    def state_dict(self) -> None:
        """None: the position says it all."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Never called, as there is no state."""

    def read(self, pass_index: int, first: int) -> Iterator[Any]:
        """The batches of a pass from number ``first`` on."""
        if self._pass.pass_index != pass_index or not self._pass.reaches_back_to(first):
            self._pass = _DrawnPass(pass_index, self._draw(pass_index))
        return self._blocks.read(self._pass.blocks(first))

    def _draw(self, pass_index: int) -> Iterator[Block]:
        streams = SideStreams(derive(self._seed, "sampler", pass_index), is_continued=True)
        with streams:
            tell_pass(self._sampler, pass_index)
        generators = PassGenerators([self._sampler, getattr(self._sampler, "sampler", None)], self._seed, pass_index)
        drawn: Iterator[Any] | None = None
        while True:
            with streams, generators:
                drawn = iter(self._sampler) if drawn is None else drawn
                ahead = list(itertools.islice(drawn, _NUM_BATCHES_AHEAD))
            if not ahead:
                return
            for keys in ahead:
                yield pass_index, list(keys) if self._is_batched else [keys]


class _DrawnPass:
    """The blocks that a sampler has drawn in a pass, with the newest kept: a pause does not ask it again."""

    def __init__(self, pass_index: int, drawn: Iterator[Block]) -> None:
        self.pass_index = pass_index
        self._drawn = drawn
        self._kept: deque[Block] = deque(maxlen=_NUM_BATCHES_KEPT)
        self._num_drawn = 0

    def reaches_back_to(self, first: int) -> bool:
        """Whether block number ``first`` is kept, or yet to be drawn by a pass that has begun."""
        return self._num_drawn > 0 and self._num_drawn - len(self._kept) <= first

    def blocks(self, first: int) -> Iterator[Block]:
        """The blocks from number ``first`` on."""
        number = first
        while number < self._num_drawn or self._draw_up_to(number):
            yield self._kept[number - self._num_drawn]
            number += 1

    def _draw_up_to(self, number: int) -> bool:
        while self._num_drawn <= number:
            block = next(self._drawn, None)
            if block is None:
                return False
            self._kept.append(block)
            self._num_drawn += 1
        return True


def tell_pass(dataloader: Any, pass_index: int) -> None:
    """Tell a dataloader, its batch sampler and its sampler which pass begins, where they have a ``set_epoch``."""
    for part in (dataloader, getattr(dataloader, "batch_sampler", None), getattr(dataloader, "sampler", None)):
        set_epoch = getattr(part, "set_epoch", None)
        if set_epoch is not None:
            set_epoch(pass_index)


def length_of(dataloader: Any) -> int | None:
    """The length of a dataloader or sampler; None where it has none."""
    try:
        return len(dataloader)
    except (TypeError, NotImplementedError):  # the latter of samplers that inherit a length they do not have
        return None
