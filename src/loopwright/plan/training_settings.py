"""`TrainingSettings`: the settings of a training loop, which are checked when the object is created."""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from loopwright.errors import SettingError, check_count, refuse, refuse_type
from loopwright.plan.epochs import EPOCHS, check_epochs

_STEPS = "a whole number of steps, 1 or more, or null"
_EPOCHS = "a whole number of epochs, 1 or more, or null"
_MICRO_BATCHES = "a whole number of micro-batches per step, 1 or more"
_BATCHES = "a whole number of validation batches, 1 or more, or null for all of them"
_FREQUENCY = f"a positive whole number of steps, a fraction in (0, 1], or {EPOCHS}"
_FREQUENCY_OFF = "use null to turn validation off"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """The settings of a `TrainingLoop`, whose docstring describes them.

    Integers and floats of other libraries, such as NumPy, are converted to ``int`` and ``float``.

    Raises:
        SettingError: if `TrainingLoop` does not accept a value.
    """

    num_steps: int | None
    max_steps: int | None
    num_epochs: int | None
    steps_per_epoch: int | None
    eval_frequency: int | float | str | None
    eval_steps: int | None
    grad_accum_steps: int
    eval_at_start: bool = False

    def __post_init__(self) -> None:
        """Check every value, and convert numbers to ``int`` or ``float``."""
        checked = {
            "num_steps": check_optional_count("num_steps", self.num_steps, _STEPS),
            "max_steps": check_optional_count("max_steps", self.max_steps, _STEPS),
            "num_epochs": check_optional_count("num_epochs", self.num_epochs, _EPOCHS),
            "steps_per_epoch": check_optional_count("steps_per_epoch", self.steps_per_epoch, _STEPS),
            "eval_frequency": _check_eval_frequency(self.eval_frequency),
            "eval_steps": check_eval_steps(self.eval_steps),
            "grad_accum_steps": check_count("grad_accum_steps", self.grad_accum_steps, _MICRO_BATCHES),
        }
        if not isinstance(self.eval_at_start, bool):
            raise refuse_type("eval_at_start", self.eval_at_start, "true or false")
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if self.num_steps is not None and self.num_epochs is not None:
            raise SettingError(
                "num_epochs",
                f"={self.num_epochs}: expected null beside num_steps={self.num_steps}, which is a length too; "
                "use loop.num_steps=null or loop.num_epochs=null.",
            )


@runtime_checkable
class HasTrainingSettings(Protocol):
    """An object with the settings of a fit, such as a `TrainingLoop`."""

    @property
    def settings(self) -> TrainingSettings:
        """The settings of the fit."""
        ...


def check_optional_count(setting: str, value: object, meaning: str) -> int | None:
    """Convert ``value`` to an int. None is returned unchanged.

    Raises:
        SettingError: if ``value`` is neither None nor an integer of at least 1. The message says that ``meaning`` is
            expected.
    """
    return None if value is None else check_count(setting, value, meaning)


def check_eval_steps(value: object) -> int | None:
    """Convert a value of ``eval_steps`` to an int. None is returned unchanged.

    Raises:
        SettingError: if ``value`` is neither None nor an integer of at least 1.
    """
    return check_optional_count("eval_steps", value, _BATCHES)


def _check_eval_frequency(value: object) -> int | float | str | None:
    if value is None:
        return None
    if isinstance(value, str):
        return check_epochs("eval_frequency", value, _FREQUENCY, _FREQUENCY_OFF)
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise refuse_type("eval_frequency", value, _FREQUENCY, _FREQUENCY_OFF)
    if isinstance(value, numbers.Rational):
        if not isinstance(value, numbers.Integral):
            raise refuse_type("eval_frequency", value, _FREQUENCY, _FREQUENCY_OFF)
        if value < 0:
            raise refuse("eval_frequency", value, _FREQUENCY, _FREQUENCY_OFF)
        return int(value)
    # The NumPy float32 0.07 has the value 0.07000000029802322, but prints 0.07. Use the printed value.
    number = float(value) if isinstance(value, float) else float(str(value))
    if not 0 <= number <= 1:
        is_whole = number > 1 and number.is_integer()
        raise refuse("eval_frequency", value, _FREQUENCY, f"use {int(number)}" if is_whole else _FREQUENCY_OFF)
    return number
