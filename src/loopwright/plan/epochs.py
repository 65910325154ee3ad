"""Functions that read lengths in epochs, such as ``"2 epochs"``, and convert them to exact numbers of steps."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction

from loopwright.errors import refuse, refuse_type

EPOCHS = "text such as '2 epochs'"  # description of the accepted text in messages

_LENGTH = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) epochs?")
# Texts that resemble a length in epochs or in steps. The message for such a text contains the correct form.
_NEARLY_EPOCHS = re.compile(r"\s*([0-9]{0,9}\.?[0-9]{1,9})[\s_-]*ep(?:ochs?)?\s*", re.IGNORECASE)
_NEARLY_STEPS = re.compile(r"\s*([1-9][0-9]{0,17})(?:\s*steps?)?\s*", re.IGNORECASE)


def read_epochs(value: object) -> Fraction | None:
    """Return the number of epochs in a text such as ``"2 epochs"``; None for any other value.

    >>> read_epochs("0.5 epochs"), read_epochs("1 epoch"), read_epochs("0 epochs"), read_epochs(2)
    (Fraction(1, 2), Fraction(1, 1), None, None)
    """
    match = _LENGTH.fullmatch(value) if isinstance(value, str) else None
    return Fraction(match[1]) or None if match else None


def check_epochs(setting: str, text: str, expected: str, remedy: str = "") -> str:
    """Return ``text`` if it is a length in epochs.

    Args:
        setting: name of the setting, for the message.
        text: value of the setting.
        expected: description of all accepted values, for the message.
        remedy: remedy for the message if ``text`` does not resemble an accepted value.

    Raises:
        SettingTypeError: if ``text`` is not a positive decimal followed by ``epoch`` or ``epochs``.
    """
    if read_epochs(text) is not None:
        return str(text)
    epochs, steps = _NEARLY_EPOCHS.fullmatch(text), _NEARLY_STEPS.fullmatch(text)
    if epochs and Fraction(epochs[1]):
        remedy = f"use '{show_epochs(Fraction(epochs[1]))}'"
    elif steps:
        remedy = f"use {steps[1]}, a number without quotes"
    raise refuse_type(setting, text, expected, remedy)


def exact_epochs(setting: str, text: str, steps_per_epoch: int | None) -> Fraction:
    """Convert a length in epochs to steps, without rounding.

    >>> exact_epochs("eval_frequency", "0.3 epochs", 45)
    Fraction(27, 2)

    Raises:
        SettingError: if ``steps_per_epoch`` is None.
    """
    epochs = read_epochs(text)
    assert epochs is not None, "check_epochs has accepted the text"
    if steps_per_epoch is None:
        expected = f"the steps of an epoch, which {setting}={text!r} needs if the training dataloader is of unknown"
        raise refuse("steps_per_epoch", None, f"{expected} length", "use for example loop.steps_per_epoch=100")
    return epochs * steps_per_epoch


def whole_epochs(setting: str, text: str, steps_per_epoch: int | None, multiple_of: int = 1) -> int:
    """Convert a length in epochs to a whole number of steps.

    Args:
        setting: name of the setting, for the message.
        text: length in epochs.
        steps_per_epoch: number of steps in an epoch; None: unknown.
        multiple_of: divisor of the number of steps that the message proposes.

    Raises:
        SettingError: if the length is not a whole number of steps, or ``steps_per_epoch`` is None.
    """
    exact = exact_epochs(setting, text, steps_per_epoch)
    if exact.denominator == 1:
        return exact.numerator
    nearest = max(1, round(exact / multiple_of)) * multiple_of
    expected = f"a whole number of steps, but an epoch has {steps_per_epoch:,} steps, so this is {float(exact):g}"
    raise refuse(setting, text, expected, f"use {setting}={nearest}")


def show_epochs(epochs: Fraction) -> str:
    """Format a number of epochs as text, such as ``2 epochs``. The number must have a finite decimal form.

    >>> show_epochs(Fraction(3, 2)), show_epochs(Fraction(1))
    ('1.5 epochs', '1 epoch')
    """
    number = Decimal(epochs.numerator) / Decimal(epochs.denominator)
    return f"{number.normalize():f} epoch{'' if epochs == 1 else 's'}"
