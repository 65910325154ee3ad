"""`Rows`, a batch that can also be read as a sequence of samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor


class Rows(Sequence[Any]):
    """A collated batch that is also a sequence of samples.

    ``__getitems__`` of the data sets in this package returns `Rows`.
    `SampleReader` uses ``batch`` without collating. torch's `DataLoader` collates the result of ``__getitems__``, and
    therefore needs a sequence of samples.

    Args:
        batch: tensors by name, with the samples along the first dimension.
    """

    __slots__ = ("batch",)

    def __init__(self, batch: Mapping[str, Tensor]) -> None:
        self.batch = dict(batch)

    def __len__(self) -> int:
        """Return the number of samples in the batch."""
        return len(next(iter(self.batch.values())))

    def __getitem__(self, index: int | slice) -> Any:
        """Return one sample, or the samples in a slice, as a dict of tensors by name."""
        return {name: tensor[index] for name, tensor in self.batch.items()}

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the samples in order."""
        return (self[index] for index in range(len(self)))
