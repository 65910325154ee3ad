"""What a callback asks of a state that was saved before it goes on from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loopwright.errors import CheckpointError, on_one_line

_MAX_NAMES = 200  # characters of names that are shown


def check_names(callback: str, saved: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Refuse a state with other names than a callback's own.

    Raises:
        CheckpointError: with the names of both.
    """
    if saved.keys() != own.keys():
        given = on_one_line(", ".join(map(str, saved)), _MAX_NAMES) or "nothing"
        raise CheckpointError(f"{callback}: the checkpoint has {given}; expected {', '.join(own)}.")


def check_counts(callback: str, saved: Mapping[str, Any], *names: str) -> None:
    """Refuse a state with anything but whole numbers of at least 0 under these names.

    Raises:
        CheckpointError: naming the first.
    """
    for name in names:
        if type(saved[name]) is not int or saved[name] < 0:
            given = on_one_line(repr(saved[name]), 80)
            raise CheckpointError(f"{callback}: {name}={given}; expected a whole number, 0 or more.")
