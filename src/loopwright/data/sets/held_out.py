"""Which rows of a data set are held out for validation: evenly spread ones, by a formula."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from loopwright.errors import refuse, refuse_type

# Keeps products of row numbers and denominators far from the limits of int64.
_MAX_DENOMINATOR = 1_000_000


@dataclass(frozen=True, slots=True)
class Part:
    """The training rows or the validation rows of a data set, numbered among themselves.

    Row *i* is held out where the whole number in (i + 1) x fraction is larger than that in i x fraction: every fifth
    row for 0.2. Nothing is drawn and nothing is stored, and a set sorted by class keeps every class in both parts.

    Args:
        num_rows: rows of the whole set.
        fraction: held out for validation.
        is_val: whether this is the part held out.
    """

    num_rows: int
    fraction: Fraction
    is_val: bool

    def __len__(self) -> int:
        """Rows in this part."""
        num_val = math.floor(self.num_rows * self.fraction)
        return num_val if self.is_val else self.num_rows - num_val

    def rows(self, places: Tensor) -> Tensor:
        """The row of the whole set at each place of this part, int64."""
        num_val, num_all = self.fraction.as_integer_ratio()
        if self.is_val:
            return -(-(places + 1) * num_all // num_val) - 1
        return places * num_all // (num_all - num_val)

    def all_rows(self) -> Tensor:
        """Every row of this part in order, int64."""
        return self.rows(torch.arange(len(self)))


def hold_out(num_rows: int, val_fraction: float) -> tuple[Part, Part]:
    """Split ``num_rows`` rows into a training part and a validation part.

    Raises:
        SettingError: for a fraction outside (0, 1), and one that leaves either part without a row.
    """
    if isinstance(val_fraction, bool) or not isinstance(val_fraction, int | float):
        raise refuse_type("val_fraction", val_fraction, "a fraction in (0, 1)")
    if not 0 < val_fraction < 1:
        raise refuse("val_fraction", val_fraction, "a fraction in (0, 1)")
    fraction = Fraction(repr(val_fraction)).limit_denominator(_MAX_DENOMINATOR)
    train, val = Part(num_rows, fraction, is_val=False), Part(num_rows, fraction, is_val=True)
    if not len(train) or not len(val):
        expected = f"a fraction that leaves rows to train on and rows to validate, of {num_rows}"
        raise refuse("val_fraction", val_fraction, expected)
    return train, val
