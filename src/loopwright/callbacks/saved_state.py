"""Functions that check the ``state_dict`` of a callback in a checkpoint when a run is resumed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loopwright.errors import CheckpointError, on_one_line

_MAX_NAME_CHARACTERS = 200  # maximum number of characters for the names in an error message


def check_names(callback: str, saved: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Check that ``saved``, from a checkpoint, has the same keys as ``own``, the ``state_dict`` of the callback.

    Raises:
        CheckpointError: if the keys differ; the message contains both lists of keys.
    """
    if saved.keys() != own.keys():
        given = on_one_line(", ".join(map(str, saved)), _MAX_NAME_CHARACTERS) or "none"
        raise CheckpointError(
            f"{callback}: the state in the checkpoint has the entries {given}; expected {', '.join(own)}."
        )


def check_settings(callback: str, saved: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Check that the settings in ``saved``, from a checkpoint, are equal to ``own``, the settings in this run.

    Raises:
        CheckpointError: if a setting differs; the message contains the saved value and the value in this run.
    """
    names = [name for name in own if saved[name] != own[name]]
    if names:
        given, expected = (", ".join(f"{name}={side[name]!r:.80}" for name in names) for side in (saved, own))
        raise CheckpointError(
            f"{callback}: the checkpoint has {on_one_line(given)}; expected {expected}, as set in this run; to start a "
            "new run from its weights, use init_from."
        )


def check_counts(callback: str, saved: Mapping[str, Any], *names: str) -> None:
    """Check that the entries ``names`` of ``saved`` are integers of at least 0.

    Raises:
        CheckpointError: if an entry is not an integer or is below 0; the message names the first wrong entry.
    """
    for name in names:
        if type(saved[name]) is not int or saved[name] < 0:
            given = on_one_line(repr(saved[name]), 80)
            raise CheckpointError(f"{callback}: {name}={given}; expected a whole number, 0 or more.")


def check_numbers(callback: str, saved: Mapping[str, Any], *names: str) -> None:
    """Check that the entries ``names`` of ``saved`` are numbers. NaN and infinite numbers are accepted.

    Raises:
        CheckpointError: if an entry is not a number; the message names the first wrong entry.
    """
    for name in names:
        if type(saved[name]) not in (int, float):
            raise CheckpointError(f"{callback}: {name}={on_one_line(repr(saved[name]), 80)}; expected a number.")
