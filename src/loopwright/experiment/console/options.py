"""Functions that parse the options ``name=value`` of commands, such as ``output=FILE`` of ``export``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from loopwright.errors import SettingError, did_you_mean


def read_options(words: Sequence[str], defaults: Mapping[str, str | None]) -> dict[str, str | None]:
    """Parse the options of a command.

    Args:
        words: options as typed.
        defaults: default value of each accepted option, by name.

    Returns:
        Value of each accepted option, by name.

    Raises:
        SettingError: for an unknown name, for a name that is given twice, and for an empty value.
    """
    given: dict[str, str | None] = {}
    for word in words:
        name, _, value = word.partition("=")
        if name not in defaults:
            hint = did_you_mean(name, defaults)
            raise SettingError(word, f": no such option. Available: {', '.join(defaults)}.{hint}")
        if name in given:
            raise SettingError(name, ": given twice; give it once.")
        if not value:
            raise SettingError(name, "=: expected a value.")
        given[name] = value
    return {**defaults, **given}


def split_options(words: Sequence[str], defaults: Mapping[str, str | None]) -> tuple[dict[str, str | None], list[str]]:
    """Parse the options of a command that also takes overrides. Return the options by name, and the overrides.

    Raises:
        SettingError: for an option that is given twice, and for an empty value.
    """
    own = [word for word in words if word.partition("=")[0] in defaults]
    return read_options(own, defaults), [word for word in words if word not in own]
