"""`settle_lengths`, which decides between several lengths of training and replaces each unused length by null."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from loopwright.experiment.compose.overrides import typed_names

LENGTHS = ("num_steps", "max_steps", "num_epochs")


class SettledLengths(NamedTuple):
    """A configuration in which each unused length is null, and a note about each unused length."""

    config: dict[str, Any]
    notes: tuple[str, ...]


def typed_lengths(overrides: Sequence[str]) -> list[str]:
    """Return the lengths that overrides set, such as ``loop.max_steps=5`` or ``loop={max_steps: 5}``."""
    return typed_names(overrides, "loop", LENGTHS)


def settle_lengths(
    config: dict[str, Any],
    overrides: Sequence[str],
    find_own: Callable[[], Mapping[str, str]] | None = None,
) -> SettledLengths:
    """Return a configuration in which the unused lengths are null.

    If overrides set lengths, only these lengths are used. Otherwise, if user files set lengths, only these
    lengths are used. Otherwise, no length is replaced. A length of null counts as not set.

    Args:
        config: resolved configuration. It is not changed.
        overrides: overrides as typed.
        find_own: function that maps the name of each length in the user's files to the name of the file. The function
            is called only if no override sets a length and the configuration contains several lengths. None: the files
            are unknown, because the configuration was recorded.
    """
    loop = config.get("loop")
    if not isinstance(loop, dict):
        return SettledLengths(config, ())
    given = [name for name in LENGTHS if loop.get(name) is not None]
    kept = [name for name in typed_lengths(overrides) if name in given]
    source, reason = "the configuration files" if find_own else "the recorded configuration", ""
    if kept:
        shown = " and ".join(f"loop.{name}={loop[name]}" for name in kept)
        reason = f"{shown} {'was' if len(kept) == 1 else 'were'} typed"
    elif find_own is not None and len(given) > 1:
        own = find_own()
        kept = [name for name in given if name in own]
        source = "the shipped files"
        reason = " and ".join(f"{own[name]} sets loop.{name}={loop[name]}" for name in kept)
    replaced = [name for name in given if name not in kept] if kept else []
    notes = tuple(f"loop.{name}={loop[name]} of {source} is not used: {reason}" for name in replaced)
    return SettledLengths({**config, "loop": {**loop, **dict.fromkeys(replaced)}}, notes)
