"""`Backlog`, which contains the values that a logger has not sent yet, and decides which values are sent next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple


class Point(NamedTuple):
    """One logged value.

    Attributes:
        step: ``global_step`` of the value.
        name: name of the value, such as ``val/loss``.
        value: the value.
        seconds: time at which the value was logged, in seconds since 1970.
    """

    step: int
    name: str
    value: float
    seconds: float


class Backlog:
    """Values that are not sent yet, in the order in which they were logged.

    A value is sent only if its step is higher than the last step that was sent under its name. So the values of a
    resumed run that were sent before are not sent again. The training metrics and the validation metrics of one step
    have different names, so they can be sent separately.

    Args:
        waits_for_step: whether the values of the newest step are held back until a value of another step is added. Then
            all values of a step are sent together.
    """

    def __init__(self, *, waits_for_step: bool = False) -> None:
        self._waits_for_step = waits_for_step
        self._points: list[Point] = []
        self._last_steps: dict[str, int] = {}
        self._num_passed = 0  # values at the beginning that the last `take` returned or passed over

    @property
    def points(self) -> Sequence[Point]:
        """The values that are not sent yet."""
        return tuple(self._points)

    @property
    def last_steps(self) -> Mapping[str, int]:
        """The last step that was sent, by name."""
        return dict(self._last_steps)

    def add(self, points: Iterable[Point]) -> None:
        """Add logged values."""
        self._points.extend(points)

    def put_first(self, points: Iterable[Point]) -> None:
        """Add values that were logged before the values in the backlog. Call this method before the first `take`."""
        self._points[:0] = points

    def know(self, last_steps: Mapping[str, int]) -> None:
        """Replace the last steps that were sent by the last steps that the receiver has stored, by name."""
        self._last_steps = dict(last_steps)

    def take(self, limit: int, *, is_end: bool = False) -> list[Point]:
        """Return the values to send next. They stay in the backlog until `note_sent` is called.

        Args:
            limit: maximum number of values.
            is_end: whether no value follows, so that the values of the newest step are not held back.
        """
        held = self._points[-1].step if self._points and self._waits_for_step and not is_end else None
        last, taken, self._num_passed = dict(self._last_steps), list[Point](), 0
        for point in self._points:
            if point.step == held or len(taken) == limit:
                break
            self._num_passed += 1
            if point.step > last.get(point.name, -1):
                last[point.name] = point.step
                taken.append(point)
        return taken

    def note_sent(self, points: Sequence[Point]) -> None:
        """Remove the values that the last `take` returned, and the values that it passed over."""
        del self._points[: self._num_passed]
        self._num_passed = 0
        self._last_steps |= {point.name: point.step for point in points}
