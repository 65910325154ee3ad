"""`settle_lengths`, which decides between the lengths of training that the user typed and the lengths in files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from loopwright.experiment.compose.overrides import typed_names

LENGTHS = ("num_steps", "max_steps", "num_epochs")


class SettledLengths(NamedTuple):
    """A configuration in which each unused length is null, and a line for each length that was replaced."""

    config: dict[str, Any]
    notes: tuple[str, ...]


def typed_lengths(overrides: Sequence[str]) -> list[str]:
    """Return the names in `LENGTHS` that the overrides set."""
    return typed_names(overrides, "loop", LENGTHS)


def settle_lengths(
    config: dict[str, Any],
    overrides: Sequence[str],
    find_own: Callable[[], Mapping[str, str]] | None = None,
) -> SettledLengths:
    """Return a configuration in which a typed length replaces each length that was not typed.

    If no length was typed, a length in a file of the user replaces the lengths that are only in shipped files. A value
    of null is not a length: it neither replaces a length nor is replaced.

    Args:
        config: resolved configuration. It is not changed.
        overrides: overrides as typed.
        find_own: function that returns the names of the lengths that files of the user set, each with the name of its
            file. It is called only if no length was typed and the configuration contains several. None for a recorded
            configuration, which does not contain the names of the files.
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
