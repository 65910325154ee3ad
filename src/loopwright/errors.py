"""Errors that users meet, and the three-part line in which each of them speaks.

What was given, what is accepted, and the nearest valid name or the remedy::

    loop.eval_frequency=1.5: expected a positive whole number of steps or a fraction in (0, 1]; use null to turn it off.
"""

from __future__ import annotations

import difflib
import numbers
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def text_of(error: BaseException) -> str:
    """What an exception says; empty where it fails to, as a user's own may."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001  (code of the user's)
        return ""


class SettingError(ValueError):
    """A setting that cannot be used.

    Args:
        setting: name of the setting as its owner knows it, such as ``eval_frequency``; a caller that
            knows the path in the configuration prefixes it with `under`.
        problem: the rest of the line, beginning with what was given or with a colon.
    """

    def __init__(self, setting: str, problem: str) -> None:
        super().__init__(f"{setting}{problem}")
        self.setting = setting
        self.problem = problem

    def under(self, path: str) -> SettingError:
        """The same error for the setting at ``path.setting`` of a configuration; one for ``path`` itself stays so."""
        is_whole = self.setting == path or not path
        return type(self)(self.setting if is_whole else f"{path}.{self.setting}", self.problem)


class SettingTypeError(SettingError, TypeError):
    """A setting of a type that is not accepted: both a `ValueError` and a `TypeError`."""


class CheckpointError(RuntimeError):
    """A checkpoint that is missing, damaged, foreign or does not fit the model."""


class SaveError(RuntimeError):
    """A checkpoint that cannot be written: no room, no permission, no folder. What was saved before is as good."""


class DataError(RuntimeError):
    """A dataloader that does not do what it says: empty, shorter or longer than its length."""


class NonFiniteError(ArithmeticError):
    """A loss, a gradient or weights that are NaN or infinite."""


def refuse(setting: str, given: object, expected: str, remedy: str = "") -> SettingError:
    """Build the error for one value: ``setting=given: expected …; remedy.``"""
    return SettingError(setting, _three_parts(given, expected, remedy))


def refuse_type(setting: str, given: object, expected: str, remedy: str = "") -> SettingTypeError:
    """Build the error for a value of the wrong type, in the same words as `refuse`."""
    return SettingTypeError(setting, _three_parts(given, expected, remedy))


def check_count(setting: str, value: object, meaning: str | None = None, *, least: int = 1) -> int:
    """Return ``value`` as an int where it is a whole number of at least ``least``.

    Raises:
        SettingTypeError: for anything that is not an integer; True and "5" are not.
        SettingError: for integers below ``least``.
    """
    meaning = meaning or f"a whole number, {least} or more"
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise refuse_type(setting, value, meaning)
    if value < least:
        raise refuse(setting, value, meaning)
    return int(value)


def nearest(name: str, options: Iterable[str]) -> str | None:
    """The option that ``name`` was most likely meant to be, or None where none is near."""
    matches = difflib.get_close_matches(name, list(options), n=1, cutoff=0.6)
    return matches[0] if matches else None


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """`` Did you mean x?`` with its leading blank, or nothing where no option is near."""
    match = nearest(name, options)
    return f" Did you mean {match}?" if match else ""


def on_one_line(text: str, limit: int | None = None) -> str:
    """Text of unknown origin for a message: on one line, what cannot be printed as escapes, cut to ``limit``."""
    if limit is not None and len(text) > limit:
        text = f"{text[: limit - 1]}…"
    joined = " ".join(text.split())
    return joined if joined.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in joined)


def room(num_bytes: int, folder: Path) -> str:
    """What a full disk lacks, where ``folder`` is or would be: ``2,048 bytes needed, 512 free``."""
    import shutil  # with its compressors, which no start of a command needs

    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return f"{num_bytes:,} bytes needed, {shutil.disk_usage(existing).free:,} free"


def _three_parts(given: object, expected: str, remedy: str) -> str:
    ending = f"; {remedy}{'' if remedy.endswith('?') else '.'}" if remedy else "."
    return f"={_shorten(given)}: expected {expected}{ending}"


def _shorten(given: object, limit: int = 80) -> str:
    is_plain = type(given).__repr__ is not object.__repr__  # which would say an address
    text = "null" if given is None else " ".join(repr(given).split()) if is_plain else f"{type(given).__name__}(…)"
    return text if len(text) <= limit else text[: limit - 1] + "…"
