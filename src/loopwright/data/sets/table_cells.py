"""Functions that classify the text of one table cell: a number, a missing value, or neither."""

from __future__ import annotations

import math
import re

# Cells that represent a missing value. Cells are compared without regard to case.
_MISSING = frozenset({"", "#n/a", "-", ".", "?", "missing", "n/a", "na", "nan", "nil", "none", "null"})

# Numbers that may have a decimal comma and points between groups of three digits, such as 1.234,5 or 12.
_COMMA_NUMBER = re.compile(r"[+-]?(?:\d*|\d{1,3}(?:\.\d{3})+)(?:,\d*)?(?:e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


def is_missing(cell: str) -> bool:
    """Return whether a cell is empty, or equal to a mark of a missing value such as ``NA``."""
    return cell.casefold() in _MISSING


def is_not_finite(cell: str) -> bool:
    """Return whether a cell contains an infinite number or NaN."""
    try:
        return not math.isfinite(float(cell))
    except ValueError:
        return False


def as_number(cell: str, decimal: str = ".") -> float | None:
    """Return the finite number in a cell; None for other text. Digits with underscores, such as 1_000, give None.

    Args:
        cell: text of the cell.
        decimal: decimal point or decimal comma. With a comma, points may separate groups of three digits.
    """
    if decimal == ",":
        if not _COMMA_NUMBER.fullmatch(cell):
            return None
        cell = cell.replace(".", "").replace(",", ".")
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if math.isfinite(number) and "_" not in cell else None
