"""`Rows`: samples that were gathered as one batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor


class Rows(Sequence[Any]):
    """What ``__getitems__`` of a tensor data set returns: a ready batch that can also be read sample by sample.

    Our reader takes ``batch`` as it is; torch's `DataLoader`, which collates whatever ``__getitems__`` returns,
    finds a sequence of samples.

    Args:
        batch: tensors by name; the first dimension of each is the samples.
    """

    __slots__ = ("batch",)

    def __init__(self, batch: Mapping[str, Tensor]) -> None:
        self.batch = dict(batch)

    def __len__(self) -> int:
        """Samples in the batch."""
        return len(next(iter(self.batch.values())))

    def __getitem__(self, index: int | slice) -> Any:
        """One sample: a tensor by name."""
        return {name: tensor[index] for name, tensor in self.batch.items()}

    def __iter__(self) -> Iterator[Any]:
        """The samples in order."""
        return (self[index] for index in range(len(self)))
