"""Functions that count and select the rows of a batch, which is a tensor or a nested container of tensors."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from loopwright.precision import map_tensors


def count_rows(batch: Any) -> int | None:
    """Return the size of the first dimension that all tensors in a batch share.

    Returns:
        The number of rows; None if the batch has no tensor or a scalar tensor, or if the sizes differ.
    """
    sizes = set[int | None]()

    def note(value: Any) -> Any:
        if isinstance(value, Tensor):
            sizes.add(value.shape[0] if value.ndim else None)
        return value

    map_tensors(batch, note)
    return sizes.pop() if len(sizes) == 1 else None


def select_rows(batch: Any, rows: slice) -> Any:
    """Return a copy of a batch in which each tensor contains only ``rows``.

    The tensors are views of the tensors in ``batch``. Objects other than tensors and containers are not copied.
    """
    return map_tensors(batch, lambda value: value[rows] if isinstance(value, Tensor) else value)
