"""Functions that format values of runs for a terminal: numbers, times, changed settings, states and sparklines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from loopwright.errors import on_one_line
from loopwright.experiment.reading.entry import Entry
from loopwright.experiment.sweep.tables import cell_text

UNKNOWN = "–"
_BLOCKS = "▁▂▃▄▅▆▇█"
_NOT_FINITE = "×"
_LOG_RANGE = 20.0  # values whose largest and smallest differ by a larger ratio are drawn on a logarithmic scale
_WEEK_DAYS = 7
ORIGIN_SETTINGS = ("init_from", "ckpt_path", "ckpt_paths")


def number_text(value: float | None) -> str:
    """Format a number with four significant digits. NaN and infinite numbers are words."""
    if value is None:
        return UNKNOWN
    if math.isfinite(value):
        return cell_text.number_text(value)
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def value_text(value: Any) -> str:
    """Format the value of a setting, a metric or a column on one line, without any abbreviation."""
    if value is None:
        return UNKNOWN
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    if isinstance(value, float):
        return number_text(value)
    return on_one_line(cell_text.value_text(value))


def changes_text(entry: Entry) -> list[str]:
    """Return a text such as ``optimizer.lr=0.01`` for each setting that is not as configured.

    The path of the checkpoint that a run starts from is left out if `Entry.origin` names the checkpoint.
    """
    if entry.swept is not None:
        first, *others = entry.swept.split(" × ")
        return [first, *(f"× {part}" for part in others)]
    shown = [
        (path, after) for path, (_, after) in entry.changes.items() if not entry.origin or path not in ORIGIN_SETTINGS
    ]
    return [on_one_line(f"{path}={_setting_text(after)}") for path, after in shown]


def _setting_text(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return number_text(value)
    return cell_text.value_text(value)


def state_text(entry: Entry) -> str:
    """Return the state of a run, or the number of finished jobs of a sweep, such as ``5 of 6 done``."""
    if entry.num_jobs is None:
        return entry.state
    text = f"{entry.num_done} of {entry.num_jobs} done"
    return f"{text}, {entry.state}" if entry.state in ("running", "lost") else text


def when_text(time: datetime | None, now: datetime) -> str:
    """Format a time in the past, such as ``2 min ago``, ``yesterday`` or ``2026-11-02``."""
    if time is None:
        return UNKNOWN
    seconds = (now - time).total_seconds()
    days = (now.astimezone().date() - time.astimezone().date()).days
    if seconds < 0 or days >= _WEEK_DAYS:
        return time.astimezone().date().isoformat()
    if seconds < 60:
        return "just now"
    if seconds < 3600:
        return f"{int(seconds // 60)} min ago"
    if days == 0 or seconds < 12 * 3600:
        return f"{int(seconds // 3600)} h ago"
    return "yesterday" if days == 1 else f"{days} days ago"


def sparkline(steps: Sequence[int], values: Sequence[float], width: int) -> str:
    """Draw values as a line of at most ``width`` characters, each of which shows the mean of an interval of steps.

    The lowest block is the smallest mean. Positive values that differ by a factor of more than 20 are drawn on a
    logarithmic scale. An interval with a value that is not finite is a cross.

    Args:
        steps: step of each value, in ascending order.
        values: values.
        width: largest number of characters.

    >>> sparkline([1, 2, 3, 4], [0.0, 1.0, 2.0, 7.0], 4)
    '▁▂▃█'
    """
    means = _means(steps, values, width)
    finite = [mean for mean in means if mean is not None and math.isfinite(mean)]
    if finite and min(finite) > 0 and max(finite) > _LOG_RANGE * min(finite):
        means = [math.log(mean) if mean is not None and math.isfinite(mean) else mean for mean in means]
        finite = [math.log(mean) for mean in finite]
    least, most = min(finite, default=0.0), max(finite, default=0.0)
    span = most / 2 - least / 2  # the difference itself may exceed the largest number
    characters = []
    for mean in means:
        if mean is None or not math.isfinite(mean):
            characters.append(" " if mean is None else _NOT_FINITE)
        else:
            height = (mean / 2 - least / 2) / span if span > 0 else 0.0
            characters.append(_BLOCKS[round(height * (len(_BLOCKS) - 1))])
    return "".join(characters)


def _means(steps: Sequence[int], values: Sequence[float], width: int) -> list[float | None]:
    """Return the mean of each interval of steps; None for an interval without a value."""
    if not steps:
        return []
    if len(steps) <= width:
        return list(values)
    first, span = steps[0], max(1, steps[-1] - steps[0])
    groups: list[list[float]] = [[] for _ in range(width)]
    for step, value in zip(steps, values, strict=True):
        groups[min(width - 1, (step - first) * width // span)].append(value)
    return [None if not group else sum(value / len(group) for value in group) for group in groups]
