"""`Rows`: samples that were read together as one batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor


class Rows(Sequence[Any]):
    """A ready batch that is also a sequence of samples; ``__getitems__`` of our data sets returns it.

    Our reader uses ``batch`` as it is. torch's `DataLoader` collates the result of ``__getitems__``, and reads it as a
    sequence of samples.

    Args:
        batch: tensors by name; their first dimension is the samples.
    """

    __slots__ = ("batch",)

    def __init__(self, batch: Mapping[str, Tensor]) -> None:
        self.batch = dict(batch)

    def __len__(self) -> int:
        """Return the number of samples in the batch."""
        return len(next(iter(self.batch.values())))

    def __getitem__(self, index: int | slice) -> Any:
        """Return one sample: its tensors by name."""
        return {name: tensor[index] for name, tensor in self.batch.items()}

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the samples in order."""
        return (self[index] for index in range(len(self)))
