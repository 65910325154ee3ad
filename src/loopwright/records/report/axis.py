"""`Axis`, which maps values to positions on a chart and chooses ticks with round numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_LOG_RANGE = 20.0  # a larger ratio of the largest and the smallest value gives a logarithmic axis
_LARGEST = 1e150  # larger values are shown at the end of the axis, because their differences could overflow
_LEAST_RANGE = 1e-9  # of the values on an axis, as a fraction of the largest value
_MARGIN = 0.05  # empty part at both ends of the vertical axis


@dataclass(frozen=True, slots=True)
class Axis:
    """A linear or logarithmic axis.

    Attributes:
        low: value at the position 0.
        high: value at the position 1.
        is_log: whether equal distances are equal ratios.
        ticks: values with a tick, in ascending order.
    """

    low: float
    high: float
    is_log: bool
    ticks: Sequence[float]

    def position(self, value: float) -> float:
        """Return the position of a value: 0 at the lower end, 1 at the upper end. Outer values are clipped."""
        if self.is_log:
            value = max(value, self.low)
            share = (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        else:
            share = (value - self.low) / (self.high - self.low)
        return min(max(share, 0.0), 1.0)


def make_axis(
    values: Iterable[float],
    *,
    num_ticks: int = 5,
    may_be_log: bool = False,
    log_range: float = _LOG_RANGE,
    margin: float = _MARGIN,
) -> Axis:
    """Return an axis that contains all finite values.

    Args:
        values: values to show.
        num_ticks: approximate number of ticks.
        may_be_log: whether the axis is logarithmic if all values are positive and their ratio exceeds ``log_range``.
        log_range: largest ratio of the values on a linear axis.
        margin: empty part at both ends, as a fraction of the range.
    """
    finite = [min(max(value, -_LARGEST), _LARGEST) for value in values if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    if may_be_log and low > 1 / _LARGEST and high / low > log_range:
        stretch = (high / low) ** margin
        low, high = low / stretch, high * stretch
        return Axis(low, high, is_log=True, ticks=_log_ticks(low, high, num_ticks))
    largest = max(abs(low), abs(high))
    room = (high - low) * margin
    if high - low <= largest * _LEAST_RANGE or largest < 1 / _LARGEST:  # the values are equal, or nearly so
        room = largest * 0.1 if largest > 1 / _LARGEST else 1.0
    low, high = low - room, high + room
    return Axis(low, high, is_log=False, ticks=_linear_ticks(low, high, num_ticks))


def number_text(value: float) -> str:
    """Return a number with four significant digits, and with commas between thousands."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "∞" if value > 0 else "−∞"
    if abs(value) < 1e7 and (value == int(value) or abs(value) >= 1000):
        return f"{round(value):,}".replace("-", "−")
    return f"{value:.4g}".replace("-", "−")


def _linear_ticks(low: float, high: float, num_ticks: int) -> list[float]:
    rough = (high - low) / num_ticks
    scale = 10.0 ** math.floor(math.log10(rough))
    step = next(each * scale for each in _STEPS if each * scale >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


def _log_ticks(low: float, high: float, num_ticks: int) -> list[float]:
    decades = range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)
    every = max(1, math.ceil(len(decades) / num_ticks))
    ticks = [10.0**power for power in decades[::every]]
    if len(ticks) >= 2:
        return ticks
    first = math.floor(math.log10(low))
    fine = [factor * 10.0**power for power in range(first, first + 4) for factor in (1, 2, 5)]
    return [tick for tick in fine if low <= tick <= high] or [low, high]
