"""Splits the rows of a data set: rows at regular intervals are held out for validation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from loopwright.errors import refuse, refuse_type

# Keeps products of row numbers and denominators far below the limit of int64.
_MAX_DENOMINATOR = 1_000_000


@dataclass(frozen=True, slots=True)
class Part:
    """The training rows or the validation rows of a data set, each numbered from 0.

    Row *i* is held out if floor((i + 1) * fraction) > floor(i * fraction), which is every fifth row for 0.2. No random
    numbers and no list of rows are needed. If a set is sorted by class, both parts contain every class.

    Args:
        num_rows: number of rows in the whole set.
        fraction: fraction of the rows held out for validation.
        is_val: whether this part is the validation rows.
    """

    num_rows: int
    fraction: Fraction
    is_val: bool

    def __len__(self) -> int:
        """Return the number of rows in this part."""
        num_val = math.floor(self.num_rows * self.fraction)
        return num_val if self.is_val else self.num_rows - num_val

    def rows(self, places: Tensor) -> Tensor:
        """Return the rows of the whole set at the given positions in this part, int64."""
        num_val, num_all = self.fraction.as_integer_ratio()
        if self.is_val:
            return -(-(places + 1) * num_all // num_val) - 1
        return places * num_all // (num_all - num_val)

    def all_rows(self) -> Tensor:
        """Return all rows of this part in order, int64."""
        return self.rows(torch.arange(len(self)))


def hold_out(num_rows: int, val_fraction: float) -> tuple[Part, Part]:
    """Split ``num_rows`` rows into a training part and a validation part.

    Raises:
        SettingError: for a fraction outside (0, 1), and for a fraction that leaves one part empty.
    """
    if isinstance(val_fraction, bool) or not isinstance(val_fraction, int | float):
        raise refuse_type("val_fraction", val_fraction, "a fraction in (0, 1)")
    if not 0 < val_fraction < 1:
        raise refuse("val_fraction", val_fraction, "a fraction in (0, 1)")
    fraction = Fraction(repr(val_fraction)).limit_denominator(_MAX_DENOMINATOR)
    train, val = Part(num_rows, fraction, is_val=False), Part(num_rows, fraction, is_val=True)
    if not len(train) or not len(val):
        expected = f"a fraction that leaves at least one row for training and one for validation, out of {num_rows}"
        raise refuse("val_fraction", val_fraction, expected)
    return train, val
