"""Functions that check the lengths in learning-rate schedules, and convert the lengths to steps.

A length is a number of steps, a fraction of a run, or a number of epochs as text, such as ``"2 epochs"``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from loopwright.errors import SettingError, check_count, refuse, refuse_type
from loopwright.plan import EPOCHS, check_epochs, exact_epochs

_STEPS = f"a whole number of steps, 0 or more, a fraction in (0, 1) of the run, or {EPOCHS}"

Length = int | float | str


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


def count_steps(setting: str, value: Length, total_steps: int, steps_per_epoch: int | None = None) -> int:
    """Convert ``value`` to a number of steps. A fraction of a step is rounded up.

    A float is converted exactly as Python prints it. For example, 0.07 of 100 steps is 7 steps, not 8:

    >>> count_steps("warmup_steps", 0.07, 100)
    7
    >>> count_steps("warmup_steps", "0.3 epochs", 100, steps_per_epoch=45)
    14

    Raises:
        SettingError: if ``value`` is not a length, or is in epochs and ``steps_per_epoch`` is None.
    """
    return math.ceil(exact_steps(setting, value, total_steps, steps_per_epoch))


def exact_steps(setting: str, value: Length, total_steps: int, steps_per_epoch: int | None = None) -> Fraction:
    """Convert ``value`` to a number of steps. A fraction of a step is not rounded."""
    check_total(total_steps)
    if steps_per_epoch is not None:
        check_count("steps_per_epoch", steps_per_epoch, "a whole number of steps, 1 or more, or null")
    if isinstance(value, str):
        return exact_epochs(setting, check_epochs(setting, value, _STEPS), steps_per_epoch)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refuse_type(setting, value, _STEPS)
    is_fraction = isinstance(value, float)
    if value < 0 or (is_fraction and not value < 1):
        raise refuse(setting, value, _STEPS)
    return Fraction(float.__repr__(value)) * total_steps if is_fraction else Fraction(value)


def count_warmup(warmup_steps: Length, total_steps: int, steps_per_epoch: int | None = None) -> int:
    """Convert the length of a warm-up to steps.

    Raises:
        SettingError: if the warm-up is longer than a run of 1 or more steps.
    """
    count = count_steps("warmup_steps", warmup_steps, total_steps, steps_per_epoch)
    if count > total_steps > 0:
        raise SettingError(
            "warmup_steps",
            f"={warmup_steps!r}: expected at most {total_steps}, the steps of the run; a fraction in (0, 1) fits a run "
            "of any length.",
        )
    return count


def count_milestones(
    milestones: Sequence[Length], num_warmup: int, total_steps: int, steps_per_epoch: int | None = None
) -> list[int]:
    """Convert milestones to steps.

    Raises:
        SettingError: if a milestone is not between the end of the warm-up and the end of a run of 1 or more steps.
    """
    if isinstance(milestones, str) or not isinstance(milestones, Sequence):
        raise refuse_type("milestones", milestones, f"a list in which each entry is {_STEPS}")
    exact = [exact_steps("milestones", milestone, total_steps, steps_per_epoch) for milestone in milestones]
    counts = [math.ceil(steps) for steps in exact]
    for milestone, steps, count in zip(milestones, exact, counts, strict=True):
        if total_steps and not (num_warmup <= count and steps < total_steps):  # rounding up may give total_steps
            raise SettingError(
                "milestones",
                f"={milestone!r}: expected steps from {num_warmup} (the end of the warm-up) to {total_steps - 1} (the "
                "last step of the run); a fraction in (0, 1) fits a run of any length, if it is not below the fraction "
                "of the warm-up.",
            )
    return counts
