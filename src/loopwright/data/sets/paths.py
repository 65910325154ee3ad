"""Functions that find the files and folders given in settings. A missing path raises a one-line error."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from loopwright.errors import SettingError, did_you_mean, refuse_type


def find_file(setting: str, given: str | os.PathLike[str]) -> Path:
    """Return the path of an existing file. ``given`` is relative to the current directory.

    A leading ``~`` is the home directory, unless the path exists as it is written.

    Raises:
        SettingError: if the file does not exist, with the nearest name in its folder in the message; if the path is a
            folder.
    """
    return _find(setting, given, "file", Path.is_file)


def find_folder(setting: str, given: str | os.PathLike[str]) -> Path:
    """Return the path of an existing folder. ``given`` is interpreted as in `find_file`.

    Raises:
        SettingError: if the folder does not exist, with the nearest name in its parent folder in the message; if the
            path is a file.
    """
    return _find(setting, given, "folder", Path.is_dir)


def _find(setting: str, given: str | os.PathLike[str], kind: str, is_kind: Callable[[Path], bool]) -> Path:
    if not isinstance(given, str | os.PathLike) or not os.fspath(given):
        raise refuse_type(setting, given, f"the path of a {kind}")
    path = Path(given)
    if not is_kind(path) and str(path).startswith("~"):
        with suppress(RuntimeError):  # the user after ~ does not exist
            path = path.expanduser()
    if is_kind(path):
        return path
    if path.exists():
        raise SettingError(setting, f"={str(given)!r}: expected a {kind}.")
    beside = os.listdir(path.parent) if path.parent.is_dir() else []
    raise SettingError(setting, f"={str(given)!r}: no such {kind}.{did_you_mean(path.name, beside)}")
