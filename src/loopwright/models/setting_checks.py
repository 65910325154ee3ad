"""Functions that check the settings shared by several models: counts, scales and dropout."""

from __future__ import annotations

import math
from collections.abc import Sequence

from loopwright.errors import check_count, refuse, refuse_type


def check_counts(setting: str, values: Sequence[int]) -> list[int]:
    """Return ``values`` as a list of ints. The list may be empty.

    Raises:
        SettingError: if ``values`` is not a sequence of integers of at least 1.
    """
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise refuse_type(setting, values, "a list of whole numbers, such as [64, 64]")
    return [check_count(f"{setting}[{index}]", value) for index, value in enumerate(values)]


def check_scale(setting: str, value: float) -> float:
    """Return ``value`` as a float.

    Raises:
        SettingError: if ``value`` is not a finite number above 0.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refuse_type(setting, value, "a number above 0")
    if not 0 < value < math.inf:
        raise refuse(setting, value, "a finite number above 0")
    return float(value)


def check_dropout(value: float) -> float:
    """Return ``value`` as a float.

    Raises:
        SettingError: if ``value`` is not a number in [0, 1).
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refuse_type("dropout", value, "a fraction in [0, 1)")
    if not 0 <= value < 1:
        raise refuse("dropout", value, "a fraction in [0, 1)")
    return float(value)
