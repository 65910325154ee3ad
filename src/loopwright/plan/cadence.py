"""Cadences: when something that happens every so many steps happens next."""

from __future__ import annotations

from fractions import Fraction
from math import ceil


def next_multiple(step: int, every: int, origin: int = 0) -> int:
    """The first step after ``step`` that lies a multiple of ``every`` steps from ``origin``.

    >>> next_multiple(0, 10), next_multiple(9, 10), next_multiple(10, 10), next_multiple(10, 10, origin=7)
    (10, 10, 20, 17)
    """
    return step + every - (step - origin) % every


def steps_between_validations(eval_frequency: int | float | None, num_steps: int) -> int | None:
    """Read ``eval_frequency`` for a fit of ``num_steps``: a float is a fraction of it, an int is in steps.

    A fraction is taken for the shortest decimal that prints it, and from there on the arithmetic is exact: in
    floating point 0.07 x 100 is more than 7, and its ceiling 8.

    Returns:
        Steps between validations, 1 or more; more than ``num_steps`` means only after the last. None: never.

    >>> steps_between_validations(0.07, 100), steps_between_validations(1, 100), steps_between_validations(1.0, 100)
    (7, 1, 100)
    """
    if not eval_frequency or not num_steps:
        return None
    if isinstance(eval_frequency, float):
        return ceil(Fraction(float.__repr__(eval_frequency)) * num_steps)
    return eval_frequency
