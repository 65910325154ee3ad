"""Functions that find the next step of a periodic event, and convert ``eval_frequency`` to a number of steps."""

from __future__ import annotations

from fractions import Fraction
from math import ceil


def next_multiple(step: int, every: int, origin: int = 0) -> int:
    """Return the first step after ``step`` whose distance from ``origin`` is a multiple of ``every``.

    >>> next_multiple(0, 10), next_multiple(9, 10), next_multiple(10, 10), next_multiple(10, 10, origin=7)
    (10, 10, 20, 17)
    """
    return step + every - (step - origin) % every


def steps_between_validations(eval_frequency: int | float | None, num_steps: int) -> int | None:
    """Convert ``eval_frequency`` to steps, for a fit of ``num_steps``.

    An int is a number of steps. A float is a fraction of the fit, and its product with ``num_steps`` is rounded up. The
    product is computed exactly, from the decimal that Python prints for the float. In floating point, 0.07 * 100 is
    more than 7 and would be rounded up to 8.

    Returns:
        Number of steps between validations, 1 or more. If the number is more than ``num_steps``, only the last step is
        validated. None: no step is validated.

    >>> steps_between_validations(0.07, 100), steps_between_validations(1, 100), steps_between_validations(1.0, 100)
    (7, 1, 100)
    """
    if not eval_frequency or not num_steps:
        return None
    if isinstance(eval_frequency, float):
        return ceil(Fraction(float.__repr__(eval_frequency)) * num_steps)
    return eval_frequency
