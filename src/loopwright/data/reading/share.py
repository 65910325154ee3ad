"""`Share`, the rows of each micro-batch that one of several processes reads, and `take_rows` for ready batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from loopwright.batch_rows import count_rows, select_rows
from loopwright.errors import DataError
from loopwright.protocols import Padding

# Index of the pass, and keys of one batch. The keys are integers, or any objects that the user's sampler yields.
KeyBlock = tuple[int, list[Any]]


@dataclass(frozen=True, slots=True)
class Share:
    """The rows of each micro-batch that one process reads: rows r, r + W, r + 2W, … for rank r of W processes.

    Args:
        rank: index of the process, from 0.
        world_size: number of processes.
    """

    rank: int = 0
    world_size: int = 1

    def of(self, keys: list[Any]) -> list[Any]:
        """Return the keys of this process among the keys of a micro-batch."""
        return keys[self.rank :: self.world_size]

    def num_rows(self, num_rows: int) -> int:
        """Return the number of rows of this process in a micro-batch of ``num_rows`` rows."""
        return len(range(self.rank, num_rows, self.world_size))

    def read(self, read: Callable[[Iterator[KeyBlock]], Iterator[Any]], blocks: Iterator[KeyBlock]) -> Iterator[Any]:
        """Yield the share of each micro-batch, or a `Padding` if this process has no row of the micro-batch.

        Args:
            read: function that reads a batch for each block.
            blocks: index of the pass and keys of all rows, for each micro-batch.
        """
        are_empty: deque[bool] = deque()

        def own_blocks() -> Iterator[KeyBlock]:
            for pass_index, keys in blocks:
                rows = self.of(keys)
                are_empty.append(not rows)
                yield pass_index, rows or keys[:1]

        for batch in read(own_blocks()):
            yield Padding(batch) if are_empty.popleft() else batch


ALL_ROWS = Share()  # the share of a run in one process


def take_rows(batch: Any, share: Share) -> tuple[Any, int]:
    """Return the rows of a process in a ready batch, or a `Padding`, and the number of rows in the whole batch.

    Raises:
        DataError: if the tensors of the batch do not have the same first dimension, or if there is no tensor.
    """
    num_rows = count_rows(batch)
    if num_rows is None:
        problem = "a batch cannot be divided over several processes, as its tensors have not the same first dimension"
        raise DataError(f"{problem}; expected tensors with a row per sample, or a dataloader that shards itself.")
    num_own = share.num_rows(num_rows)
    rows = slice(share.rank, None, share.world_size) if num_own else slice(0, 1)
    own = select_rows(batch, rows)
    return own if num_own else Padding(own), num_rows
