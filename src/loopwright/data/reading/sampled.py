"""`SampledSource`, a batch source that reads the samples that the user's sampler chooses."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from typing import Any

from loopwright.data.reading.generators import PassGenerators
from loopwright.data.reading.indexed import BlockReader, SampleReader, Workers
from loopwright.data.reading.share import ALL_ROWS, KeyBlock, Share
from loopwright.protocols import DataFacts
from loopwright.seeding import SideStreams, derive

# Number of batches whose keys are drawn from the sampler at a time. The random generators are swapped once for these
# batches, because a swap takes longer than drawing a key.
_NUM_BATCHES_AHEAD = 64

# Number of recently drawn batches whose keys are kept. When a pass is paused, fewer batches than this number
# are drawn but not yet read.
_NUM_BATCHES_KEPT = 1024


class SampledSource:
    """Reads the samples that the user's sampler chooses, in the order of the sampler.

    To start later in a pass, keys are drawn and skipped without reading data.

    While the sampler runs, the random generators are seeded by (seed, pass). A `torch.Generator` in the sampler's
    attribute ``generator`` is replaced by a generator whose seed depends on (seed, pass). The order of a pass can
    therefore be drawn again. A sampler with another source of random numbers continues its order after a pause in the
    same process, but a new process cannot reproduce this order. ``set_epoch`` of the sampler is called with the index
    of the pass. Keys are drawn up to 64 batches ahead.

    Args:
        reader: reader of the samples.
        sampler: iterable whose items are lists of the keys in a batch, or single keys. For a single key, the data set
            returns a whole batch.
        is_batched: whether the items of ``sampler`` are lists of keys; otherwise each item is a single key.
        workers: number and options of the worker processes.
        seed: seed of the run.
        facts: known properties of the dataloader.
        share: rows of each batch that this process reads.
    """

    is_sought = True
    is_one_shot = False

    def __init__(
        self,
        reader: SampleReader,
        sampler: Any,
        *,
        is_batched: bool,
        workers: Workers,
        seed: int,
        facts: DataFacts,
        share: Share = ALL_ROWS,
    ) -> None:
        self._blocks = BlockReader(reader, workers)
        self._sampler = sampler
        self._is_batched = is_batched
        self._seed = seed
        self._facts = facts
        self._share = share
        self._pass = _DrawnPass(0, iter(()))

    @property
    def num_batches(self) -> int | None:
        """Number of batches in a pass; None if the sampler has no length."""
        return length_of(self._sampler)

    @property
    def max_batches(self) -> int | None:
        """Same as `num_batches`."""
        return self.num_batches

    @property
    def facts(self) -> DataFacts:
        """Known properties of the dataloader."""
        return self._facts

    def num_samples(self, batch_index: int) -> int | None:
        """Return the number of keys that this process read of a recent batch; None if each key is a whole batch."""
        num_keys = self._pass.num_keys(batch_index) if self._is_batched else None
        return num_keys if num_keys is None else self._share.num_rows(num_keys)

    def peek(self) -> None:
        """Return None, because the sampler may not choose the same samples again."""

    def state_dict(self) -> None:
        """Return None. A resume needs only the indices of the pass and the micro-batch, which the run saves."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do nothing, because `state_dict` returns None."""

    def read(self, pass_index: int, first: int) -> Iterator[Any]:
        """Return an iterator over the batches of a pass, beginning with batch ``first``; both count from 0."""
        if self._pass.pass_index != pass_index or not self._pass.reaches_back_to(first):
            self._pass = _DrawnPass(pass_index, self._draw(pass_index))
        blocks = self._pass.blocks(first)
        return self._blocks.read(blocks) if self._share.world_size == 1 else self._share.read(self._blocks.read, blocks)

    def _draw(self, pass_index: int) -> Iterator[KeyBlock]:
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
    """The blocks that the sampler has drawn in a pass. A block is a tuple of the pass index and the keys of one batch.

    The newest blocks are kept. A pass that resumes after a pause uses these blocks instead of drawing again.
    """

    def __init__(self, pass_index: int, drawn: Iterator[KeyBlock]) -> None:
        self.pass_index = pass_index
        self._drawn = drawn
        self._kept: deque[KeyBlock] = deque(maxlen=_NUM_BATCHES_KEPT)
        self._num_drawn = 0

    def reaches_back_to(self, first: int) -> bool:
        """Whether block ``first`` (from 0) is kept or not yet drawn. False before the first draw."""
        return self._num_drawn > 0 and self._num_drawn - len(self._kept) <= first

    def blocks(self, first: int) -> Iterator[KeyBlock]:
        """Yield the blocks, beginning with block ``first`` (from 0)."""
        number = first
        while number < self._num_drawn or self._draw_up_to(number):
            yield self._kept[number - self._num_drawn]
            number += 1

    def num_keys(self, number: int) -> int | None:
        """Return the number of keys in block ``number`` (from 0); None if the block is not kept."""
        offset = number - self._num_drawn
        return len(self._kept[offset][1]) if -len(self._kept) <= offset < 0 else None

    def _draw_up_to(self, number: int) -> bool:
        while self._num_drawn <= number:
            block = next(self._drawn, None)
            if block is None:
                return False
            self._kept.append(block)
            self._num_drawn += 1
        return True


def tell_pass(dataloader: Any, pass_index: int) -> None:
    """Call ``set_epoch(pass_index)`` of a dataloader, its samplers and its data set, if they have this method."""
    for part in (dataloader, *(getattr(dataloader, name, None) for name in ("batch_sampler", "sampler", "dataset"))):
        set_epoch = getattr(part, "set_epoch", None)
        if set_epoch is not None:
            set_epoch(pass_index)


def length_of(dataloader: Any) -> int | None:
    """Return the length of a dataloader or sampler; None if it has no length."""
    try:
        return len(dataloader)
    except (TypeError, NotImplementedError):  # An inherited `__len__` may raise NotImplementedError.
        return None
