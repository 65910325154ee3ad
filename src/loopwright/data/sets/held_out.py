"""`hold_out`, which splits a data set into training rows and, at regular intervals, validation rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from loopwright.errors import SettingError, refuse, refuse_type

# Largest denominator of a fraction. It keeps the products of row numbers and denominators far below 2**63.
_MAX_DENOMINATOR = 1_000_000


@dataclass(frozen=True, slots=True)
class Part:
    """The training rows or the validation rows of a data set. Positions in a part count from 0.

    Row *i* is held out if floor((i + 1) * fraction) > floor(i * fraction), so a fraction of 0.2 holds out every fifth
    row. If a data set is sorted by class, the training rows and the validation rows contain every class that has enough
    rows.

    Args:
        num_rows: number of rows in the whole set.
        fraction: fraction of the rows held out for validation.
        is_val: True for the validation rows, False for the training rows.
    """

    num_rows: int
    fraction: Fraction
    is_val: bool

    def __len__(self) -> int:
        """Return the number of rows in this part."""
        num_val = math.floor(self.num_rows * self.fraction)
        return num_val if self.is_val else self.num_rows - num_val

    def rows(self, places: Tensor) -> Tensor:
        """Return the row numbers in the whole set, int64, of the rows at positions ``places`` in this part."""
        num_val, num_all = self.fraction.as_integer_ratio()
        if self.is_val:
            return -(-(places + 1) * num_all // num_val) - 1
        return places * num_all // (num_all - num_val)

    def all_rows(self) -> Tensor:
        """Return the row numbers of this part in the whole set, int64, in ascending order."""
        return self.rows(torch.arange(len(self)))


def hold_out(num_rows: int, val_fraction: float) -> tuple[Part, Part]:
    """Split ``num_rows`` rows into a training part and a validation part.

    Raises:
        SettingError: for fewer than two rows, for a fraction outside (0, 1), and for a fraction that leaves one part
            empty.
    """
    if isinstance(val_fraction, bool) or not isinstance(val_fraction, int | float):
        raise refuse_type("val_fraction", val_fraction, "a fraction in (0, 1)")
    if not 0 < val_fraction < 1:
        raise refuse("val_fraction", val_fraction, "a fraction in (0, 1)")
    if num_rows < 2:
        count = f"{num_rows} sample{'' if num_rows == 1 else 's'}"
        raise SettingError("path", f": contains {count}; expected at least 2, one for training and one for validation.")
    fraction = Fraction(repr(val_fraction)).limit_denominator(_MAX_DENOMINATOR)
    train, val = Part(num_rows, fraction, is_val=False), Part(num_rows, fraction, is_val=True)
    if not len(train) or not len(val):
        expected = f"a fraction that leaves at least one row for training and one for validation, out of {num_rows}"
        raise refuse("val_fraction", val_fraction, expected)
    return train, val
