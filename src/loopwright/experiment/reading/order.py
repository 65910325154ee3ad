"""`in_order`, which sorts runs by the values of a key."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from loopwright.errors import SettingError
from loopwright.experiment.reading.entry import Entry
from loopwright.experiment.reading.keys import KEYS, Keys
from loopwright.plan import settle_mode


def in_order(entries: Sequence[Entry], sort: str, keys: Keys) -> list[Entry]:
    """Return the runs sorted by a key. Runs without a value, or with NaN, are last.

    Times are sorted from the newest, metrics from the best, and all other values from the smallest. Runs with equal
    values are sorted from the newest.

    Args:
        entries: runs.
        sort: column, metric, or path of a setting. A minus sign before it reverses the order.
        keys: values of the runs.

    Raises:
        SettingError: if no run has a value with this key.
    """
    is_reversed = sort.startswith("-")
    key = sort.removeprefix("-")
    try:
        value_of = keys.find(key)
    except SettingError as error:
        raise SettingError("sort", f"={sort}{error.problem}") from None
    newest = sorted(entries, key=lambda entry: (_seconds(entry.started), entry.id), reverse=True)
    is_descending = is_reversed != _is_largest_first(key, entries, [value_of(entry) for entry in newest])
    known = [entry for entry in newest if _rank(value_of(entry)) is not None]
    unknown = [entry for entry in newest if _rank(value_of(entry)) is None]
    # The list is reversed twice, so that runs with equal values stay in their order.
    ordered = sorted(reversed(known) if is_descending else known, key=lambda entry: _rank(value_of(entry)) or ())
    return [*(reversed(ordered) if is_descending else ordered), *unknown]


def _seconds(time: datetime | None) -> float:
    return -math.inf if time is None else time.timestamp()


def _rank(value: Any) -> tuple[int, float, str] | None:
    """Return a key that sorts values of any type: numbers and times first, then texts. None for a missing value."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, datetime):
        return (0, value.timestamp(), "")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (0, float(value) if abs(value) < 1e300 else math.copysign(math.inf, value), "")
    return (1, 0.0, str(value))


def _is_largest_first(key: str, entries: Sequence[Entry], values: Sequence[Any]) -> bool:
    """Return whether the largest value is the first: the newest time, or the best value of a metric."""
    if any(isinstance(value, datetime) for value in values):
        return True
    modes = {entry.objective_mode for entry in entries if entry.objective_mode is not None}
    objectives = {entry.objective_name for entry in entries}
    if key in ("objective", "best") or {key} == objectives:
        return modes == {"max"}
    if key in KEYS or not any(key in entry.metrics for entry in entries):
        return False
    try:
        return settle_mode(None, key) == "max"
    except SettingError:  # the name does not show which values are better
        return key != "lr" and not key.startswith("lr/")
