"""`Share`, the rows of each micro-batch that one process reads, and `take_rows`, which selects rows of a batch."""

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
        """Select the keys of this process from the keys of a micro-batch."""
        return keys[self.rank :: self.world_size]

    def num_rows(self, num_rows: int) -> int:
        """Return the number of rows of this process in a micro-batch of ``num_rows`` rows."""
        return len(range(self.rank, num_rows, self.world_size))

    def read(self, read: Callable[[Iterator[KeyBlock]], Iterator[Any]], blocks: Iterator[KeyBlock]) -> Iterator[Any]:
        """Yield the rows of this process in each micro-batch, or a `Padding` if this process has no row.

        Args:
            read: function that reads one batch for each pair of a pass index and sample keys.
            blocks: for each micro-batch, the index of the pass and the keys of all rows.
        """
        are_empty: deque[bool] = deque()

        def own_blocks() -> Iterator[KeyBlock]:
            for pass_index, keys in blocks:
                rows = self.of(keys)
                are_empty.append(not rows)
                yield pass_index, rows or keys[:1]

        for batch in read(own_blocks()):
            yield Padding(batch) if are_empty.popleft() else batch


ALL_ROWS = Share()  # the rows of the only process of a run


def take_rows(batch: Any, share: Share) -> Any:
    """Return the rows of a process in ``batch``.

    A process without a row gets a `Padding` that contains the first row.

    Raises:
        DataError: if the tensors differ in the size of the first dimension, or if `count_rows` finds no rows.
    """
    num_rows = count_rows(batch)
    if num_rows is None:
        problem = "a batch cannot be divided over several processes, because its tensors differ in size"
        raise DataError(f"{problem}; expected one row per sample, or an IterableDataset that divides its data.")
    num_own = share.num_rows(num_rows)
    rows = slice(share.rank, None, share.world_size) if num_own else slice(0, 1)
    own = select_rows(batch, rows)
    return own if num_own else Padding(own)
