"""Functions that check lengths and convert them to steps. A length is a number of steps or a fraction of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from loopwright.errors import SettingError, refuse, refuse_type

_STEPS = "a whole number of steps, 0 or more, or a fraction in (0, 1) of the run"


def check_total(total_steps: object) -> None:
    """Check that the number of steps of a run is an integer, 0 or more."""
    if isinstance(total_steps, bool) or not isinstance(total_steps, int):
        raise refuse_type("total_steps", total_steps, "a whole number, 0 or more")
    if total_steps < 0:
        raise refuse("total_steps", total_steps, "a whole number, 0 or more")


def check_fraction(setting: str, value: object) -> float:
    """Return ``value`` as a float if it is in [0, 1], otherwise raise a `SettingError`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refuse_type(setting, value, "a fraction in [0, 1]")
    if not 0 <= value <= 1:
        raise refuse(setting, value, "a fraction in [0, 1]")
    return float(value)


def count_steps(setting: str, value: int | float, total_steps: int) -> int:
    """Convert ``value`` to a number of steps. A fraction of a step is rounded up.

    The decimal that Python prints for a float is used exactly, so 0.07 of 100 steps is 7 steps, not 8:

    >>> count_steps("warmup_steps", 0.07, 100)
    7
    """
    return math.ceil(exact_steps(setting, value, total_steps))


def exact_steps(setting: str, value: int | float, total_steps: int) -> Fraction:
    """Convert ``value`` to steps as `count_steps` does, but without rounding up fractions of a step."""
    check_total(total_steps)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refuse_type(setting, value, _STEPS)
    is_fraction = isinstance(value, float)
    if value < 0 or (is_fraction and not value < 1):
        raise refuse(setting, value, _STEPS)
    return Fraction(float.__repr__(value)) * total_steps if is_fraction else Fraction(value)


def count_warmup(warmup_steps: int | float, total_steps: int) -> int:
    """Convert the length of a warm-up to steps.

    Raises:
        SettingError: if the warm-up is longer than a run of 1 or more steps.
    """
    count = count_steps("warmup_steps", warmup_steps, total_steps)
    if count > total_steps > 0:
        raise SettingError(
            "warmup_steps",
            f"={warmup_steps}: expected at most {total_steps}, the steps of the run; a fraction in (0, 1) fits a run "
            "of any length.",
        )
    return count


def count_milestones(milestones: Sequence[int | float], num_warmup: int, total_steps: int) -> list[int]:
    """Convert milestones to steps.

    Raises:
        SettingError: if a milestone is not between the end of the warm-up and the end of a run of 1 or more steps.
    """
    if isinstance(milestones, str) or not isinstance(milestones, Sequence):
        raise refuse_type("milestones", milestones, f"a list in which each entry is {_STEPS}")
    counts = [count_steps("milestones", milestone, total_steps) for milestone in milestones]
    for milestone, count in zip(milestones, counts, strict=True):
        last = total_steps if isinstance(milestone, float) else total_steps - 1  # rounding up may give total_steps
        if total_steps and not num_warmup <= count <= last:
            raise SettingError(
                "milestones",
                f"={milestone}: expected steps from {num_warmup} (the end of the warm-up) to {total_steps - 1} (the "
                "last step of the run); a fraction in (0, 1) fits a run of any length, if it is not below the fraction "
                "of the warm-up.",
            )
    return counts
