"""Exception classes for errors that users see, and functions that build one-line messages for these errors.

Most messages contain the given value, a description of the accepted values, and a remedy or the nearest valid name::

    loop.eval_frequency=1.5: expected a positive whole number of steps or a fraction in (0, 1]; use null to turn it off.
"""

from __future__ import annotations

import difflib
import numbers
import unicodedata
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def text_of(error: BaseException) -> str:
    """Return the message of an exception. Return an empty string if the ``__str__`` of a user's class raises."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001  (a user's __str__ can raise any exception)
        return ""


class SettingError(ValueError):
    """Raised if an argument or a configuration value is invalid.

    Args:
        setting: name of the argument or path of the configuration value, such as ``loop.eval_frequency``.
        problem: rest of the message. It begins with a colon, or with ``=`` and the invalid value.
    """

    def __init__(self, setting: str, problem: str) -> None:
        super().__init__(f"{setting}{problem}")
        self.setting = setting
        self.problem = problem

    def under(self, path: str) -> SettingError:
        """Return a copy of this error with ``path`` and a dot before the name of the setting.

        If ``path`` is empty or equal to the name of the setting, the name is not changed.
        """
        is_whole = self.setting == path or not path
        return type(self)(self.setting if is_whole else f"{path}.{self.setting}", self.problem)


class SettingTypeError(SettingError, TypeError):
    """Raised if a setting has a wrong type. This error is both a `ValueError` and a `TypeError`."""


class CheckpointError(RuntimeError):
    """Raised if a checkpoint is missing or damaged, or does not fit the model or the run."""


class SaveError(RuntimeError):
    """Raised if a checkpoint or another file of a run cannot be written, for example because the disk is full.

    Earlier checkpoints are not affected.
    """


class PeerError(RuntimeError):
    """Raised if processes train together, and the communication with another process failed.

    This error is a consequence: the other process has ended, or has not answered in time.
    """


class DataError(RuntimeError):
    """Raised if data cannot be used.

    For example, a data file cannot be read, or a dataloader is empty or yields fewer or more batches than its length.
    """


class NonFiniteError(ArithmeticError):
    """Raised if a loss, a gradient or a weight is NaN or infinite."""


def refuse(setting: str, given: object, expected: str, remedy: str = "") -> SettingError:
    """Build a `SettingError` with the message ``setting=given: expected …; remedy.``

    A remedy that ends with a question mark is a sentence of its own.
    """
    return SettingError(setting, _three_parts(given, expected, remedy))


def refuse_type(setting: str, given: object, expected: str, remedy: str = "") -> SettingTypeError:
    """Build a `SettingTypeError` with the message ``setting=given: expected …; remedy.``"""
    return SettingTypeError(setting, _three_parts(given, expected, remedy))


def check_count(
    setting: str, value: object, meaning: str | None = None, *, least: int = 1, most: int | None = None
) -> int:
    """Return ``value`` as an int if it is an integer of at least ``least``.

    Args:
        setting: name of the setting.
        value: value of the setting: an int, or an integer of a library such as NumPy.
        meaning: description of the accepted values; None: "a whole number, ``least`` or more".
        least: smallest accepted value.
        most: largest accepted value; None: no limit. The message for a larger value contains both limits instead of
            ``meaning``.

    Raises:
        SettingTypeError: if ``value`` is not an integer; True and "5" are not integers.
        SettingError: if ``value`` is below ``least`` or above ``most``.
    """
    meaning = meaning or f"a whole number, {least} or more"
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise refuse_type(setting, value, meaning)
    if value < least:
        raise refuse(setting, value, meaning)
    if most is not None and int(value) > most:
        raise refuse(setting, value, f"a whole number from {least} to {most:,}")
    return int(value)


def nearest(name: str, options: Iterable[str]) -> str | None:
    """Return the option whose spelling is most similar to ``name``, or None if no option is similar."""
    matches = difflib.get_close_matches(name, list(options), n=1, cutoff=0.6)
    return matches[0] if matches else None


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """Return `` Did you mean x?`` with a leading space, or an empty string if no option is similar to ``name``."""
    match = nearest(name, options)
    return f" Did you mean {match}?" if match else ""


def on_one_line(text: str, limit: int | None = None) -> str:
    """Convert a string to one printable line for a message.

    A string of more than ``limit`` characters is truncated. Each run of white space, including line breaks, is replaced
    by one space. Unprintable characters are escaped.
    """
    if limit is not None and len(text) > limit:
        text = f"{text[: limit - 1]}…"
    joined = " ".join(text.split())
    return joined if joined.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in joined)


def printable(text: str, *, keeps_newlines: bool = True) -> str:
    """Replace unprintable characters in ``text`` by escape sequences, because a terminal would interpret them.

    Examples are control characters and characters that change the direction of text. All kinds of spaces are kept. If
    ``keeps_newlines`` is True, newlines are kept.
    """
    kept = "\n" if keeps_newlines else ""
    if text.replace("\n", "" if keeps_newlines else "\n").isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in kept or unicodedata.category(c) == "Zs" else ascii(c)[1:-1] for c in text
    )


def room(num_bytes: int, folder: Path) -> str:
    """Return a text such as ``2,048 bytes needed, 512 free``.

    Args:
        num_bytes: number of bytes needed.
        folder: folder on the disk whose free bytes are counted. The folder need not exist.
    """
    import shutil  # imported here because `shutil` slowly imports compression modules

    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return f"{num_bytes:,} bytes needed, {shutil.disk_usage(existing).free:,} free"


def _three_parts(given: object, expected: str, remedy: str) -> str:
    ending = f". {remedy}" if remedy.endswith("?") else f"; {remedy}." if remedy else "."
    return f"={_shorten(given)}: expected {expected}{ending}"


def _shorten(given: object, limit: int = 80) -> str:
    is_plain = type(given).__repr__ is not object.__repr__  # object.__repr__ shows a memory address
    text = "null" if given is None else " ".join(repr(given).split()) if is_plain else f"{type(given).__name__}(…)"
    return text if len(text) <= limit else text[: limit - 1] + "…"
