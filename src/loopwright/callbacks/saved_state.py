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


def check_settings(callback: str, saved: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Refuse a state of a callback that was set otherwise.

    Raises:
        CheckpointError: with the settings that differ, as they were and are.
    """
    names = [name for name in own if saved[name] != own[name]]
    if names:
        given, expected = (", ".join(f"{name}={side[name]!r:.80}" for name in names) for side in (saved, own))
        raise CheckpointError(
            f"{callback}: the checkpoint has {on_one_line(given)}; expected {expected}, as this run has; "
            "init_from begins a new run with its weights."
        )


def check_counts(callback: str, saved: Mapping[str, Any], *names: str) -> None:
    """Refuse a state with anything but whole numbers of at least 0 under these names.

    Raises:
        CheckpointError: naming the first.
    """
    for name in names:
        if type(saved[name]) is not int or saved[name] < 0:
            given = on_one_line(repr(saved[name]), 80)
            raise CheckpointError(f"{callback}: {name}={given}; expected a whole number, 0 or more.")


def check_numbers(callback: str, saved: Mapping[str, Any], *names: str) -> None:
    """Refuse a state with anything but numbers, which need not be finite, under these names.

    Raises:
        CheckpointError: naming the first.
    """
    for name in names:
        if type(saved[name]) not in (int, float):
            raise CheckpointError(f"{callback}: {name}={on_one_line(repr(saved[name]), 80)}; expected a number.")
