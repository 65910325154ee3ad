"""`changed_value`, which returns another accepted value of a setting, for an override that can be pasted."""

from __future__ import annotations

from typing import Any

from loopwright.experiment.compose.value_text import value_text
from loopwright.experiment.explain.explained import MISSING
from loopwright.experiment.explain.signatures import NO_DEFAULT, Argument


def changed_value(value: Any, argument: Argument | None) -> str:
    """Return another value of the same kind as text. If no other value is certain to be accepted, return ``value``.

    Args:
        value: current value.
        argument: argument to which the value is passed; None if it is unknown.
    """
    options = () if argument is None else argument.options
    if value == MISSING:
        return "VALUE"
    if options:
        return next((option for option in options if option != value), str(value))
    if isinstance(value, bool):
        return value_text(not value)
    if isinstance(value, int):
        return str(value // 2 if value > 1 else value + 1)
    if isinstance(value, float):
        return f"{value / 2:.6g}"
    default = NO_DEFAULT if argument is None else argument.default
    if value is None and default not in (None, NO_DEFAULT):
        return value_text(default)
    if value is None and argument is not None and argument.annotation == "int | None":
        return "1"
    return _compact(value)


def _compact(value: Any) -> str:
    """Return a value without spaces after commas."""
    return f"[{','.join(map(value_text, value))}]" if isinstance(value, list) else value_text(value)
