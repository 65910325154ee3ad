"""`TensorData`, a data set of tensors in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from loopwright.data.reading.rows import Rows
from loopwright.errors import SettingError, refuse, refuse_type


class TensorData:
    """Data set of tensors in memory. Sample *i* is row *i* of each tensor.

    Reading draws no random numbers. A batch is read with one indexing operation for each tensor.

    Args:
        tensors: tensors by the names that the model uses, with the samples along the first dimension. The tensors are
            not copied.

    Raises:
        SettingError: if there are no tensors, or if they differ in their number of rows.
    """

    is_random: ClassVar[bool] = False

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        if not isinstance(tensors, Mapping) or not all(isinstance(value, Tensor) for value in tensors.values()):
            raise refuse_type("tensors", tensors, "a mapping of names to tensors")
        if not tensors:
            raise refuse("tensors", {}, "at least one tensor")
        lengths = {name: len(tensor) if tensor.ndim else None for name, tensor in tensors.items()}
        if len(set(lengths.values())) > 1 or None in lengths.values():
            raise SettingError("tensors", f" with lengths {lengths}: expected the same number of rows in each.")
        self._tensors = dict(tensors)

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """The tensors by name."""
        return self._tensors

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(next(iter(self._tensors.values())))

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return one sample; its tensors are views, not copies."""
        return {name: tensor[index] for name, tensor in self._tensors.items()}

    def __getitems__(self, indices: list[int]) -> Rows:
        """Return the samples at ``indices`` as one batch, which is a copy."""
        rows = torch.tensor(indices)
        return Rows({name: tensor.index_select(0, rows) for name, tensor in self._tensors.items()})
