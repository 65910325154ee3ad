"""`Cadence`, functions that find and count the steps of periodic events, and `steps_between_validations`."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import ceil, gcd
from typing import NamedTuple

from loopwright.plan.epochs import exact_epochs


class Cadence(NamedTuple):
    """The steps whose distance from ``origin`` is a multiple of ``every``."""

    every: int
    origin: int = 0


def next_multiple(step: int, every: int, origin: int = 0) -> int:
    """Return the first step after ``step`` whose distance from ``origin`` is a multiple of ``every``.

    >>> next_multiple(0, 10), next_multiple(9, 10), next_multiple(10, 10), next_multiple(10, 10, origin=7)
    (10, 10, 20, 17)
    """
    return step + every - (step - origin) % every


def count_steps(cadences: Sequence[Cadence], start: int, stop: int) -> int:
    """Count the steps in ``[start, stop)`` that belong to at least one cadence, without iterating over the steps.

    >>> count_steps([Cadence(10), Cadence(4, origin=2)], 1, 31)  # 10, 20, 30 and 2, 6, 10, ..., 30
    9
    """
    if not cadences or start >= stop:
        return 0
    (every, origin), *others = dict.fromkeys(cadences)
    own = (stop - 1 - origin) // every - (start - 1 - origin) // every
    shared = [both for other in others if own and (both := _intersect(cadences[0], other)) is not None]
    return own + count_steps(others, start, stop) - count_steps(shared, start, stop)


def _intersect(a: Cadence, b: Cadence) -> Cadence | None:
    """Return the steps that belong to both cadences, by the Chinese remainder theorem; None: no such steps."""
    divisor = gcd(a.every, b.every)
    distance, rest = divmod(b.origin - a.origin, divisor)
    if rest:
        return None
    period = b.every // divisor
    num_intervals = distance * pow(a.every // divisor, -1, period) % period
    return Cadence(a.every * period, a.origin + a.every * num_intervals)


def steps_between_validations(
    eval_frequency: int | float | str | None, num_steps: int, steps_per_epoch: int | None = None
) -> int | None:
    """Convert ``eval_frequency`` to steps, for a fit of ``num_steps``.

    An int is a number of steps. A float is a fraction of the fit, and its product with ``num_steps`` is rounded up. The
    product is computed exactly from the decimal form of the float. In floating point, 0.07 * 100 is more than 7 and
    would be rounded up to 8. A text is a number of epochs. Its product with ``steps_per_epoch`` is also computed
    exactly and rounded up.

    Returns:
        The number of steps between validations, 1 or more. If this number is larger than ``num_steps``, only the last
        step is validated. None: no step is validated.

    Raises:
        SettingError: if ``eval_frequency`` is in epochs and ``steps_per_epoch`` is None.

    >>> steps_between_validations(0.07, 100), steps_between_validations(1, 100), steps_between_validations(1.0, 100)
    (7, 1, 100)
    >>> steps_between_validations("0.3 epochs", 100, steps_per_epoch=45)
    14
    """
    if isinstance(eval_frequency, str):
        every = ceil(exact_epochs("eval_frequency", eval_frequency, steps_per_epoch))
        return every if num_steps else None
    if not eval_frequency or not num_steps:
        return None
    if isinstance(eval_frequency, float):
        return ceil(Fraction(float.__repr__(eval_frequency)) * num_steps)
    return eval_frequency
