"""Checks of the settings that models share."""

from __future__ import annotations

from collections.abc import Sequence

from loopwright.errors import check_count, refuse, refuse_type


def check_counts(setting: str, values: Sequence[int]) -> list[int]:
    """Return ``values`` as a list of ints where each is a whole number of at least 1; it may be empty.

    Raises:
        SettingError: for anything else.
    """
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise refuse_type(setting, values, "a list of whole numbers, such as [64, 64]")
    return [check_count(f"{setting}[{index}]", value) for index, value in enumerate(values)]


def check_dropout(value: float) -> float:
    """Return ``value`` where it is a fraction in [0, 1).

    Raises:
        SettingError: for anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refuse_type("dropout", value, "a fraction in [0, 1)")
    if not 0 <= value < 1:
        raise refuse("dropout", value, "a fraction in [0, 1)")
    return float(value)
