"""Functions that create run directories. Two runs never get the same directory."""

from __future__ import annotations

import os
import secrets
from datetime import datetime
from pathlib import Path

from loopwright.errors import SettingError

OUTPUTS = Path("outputs")
_TYPED = "hydra.run.dir=DIR, or for a sweep hydra.sweep.dir=DIR"
_RUN_FILES = ("config.yaml", "summary.json", "data.json", "checkpoints", "multirun.yaml", ".hydra")


def allocate(name: str, *, is_sweep: bool) -> Path:
    """Create ``outputs/<name>/<date>_<time>_<id>`` and return its relative path. For a sweep, append ``_sweep``.

    Args:
        name: name of the run, already checked by `JobSettings`.
        is_sweep: whether the directory will contain the directories of the jobs of a sweep.

    Raises:
        SettingError: if ``outputs/<name>`` cannot be created.
        OSError: if the directory cannot be created in ``outputs/<name>``.
    """
    parent = OUTPUTS / name
    _make("run directory", parent)
    return _make_new(parent, is_sweep)


def use(setting: str, directory: str) -> Path:
    """Create the run directory that the user typed, if it does not exist, and return its path.

    Args:
        setting: name of the setting in which the user typed the path. Error messages contain this name.
        directory: path as typed.

    Raises:
        SettingError: if the directory already contains a run or cannot be created, or if the path is a file.
    """
    path = Path(directory)
    check_usable(setting, path)
    _make(setting, path)
    return path


def _make(setting: str, path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        problem = f"={str(path)!r}: cannot be created ({reason}: {error.filename}); name a directory with {_TYPED}."
        raise SettingError(setting, problem) from error


def check_usable(setting: str, path: Path) -> None:
    """Raise a `SettingError` if ``path`` is a file, or a directory that already contains a run."""
    if path.exists() and not path.is_dir():
        raise SettingError(setting, f"={str(path)!r}: expected a directory, found a file.")
    held = [name for name in _RUN_FILES if (path / name).exists()]
    if held or (path.is_dir() and any(os.path.exists(child / "summary.json") for child in path.iterdir())):
        raise SettingError(setting, f"={str(path)!r}: contains a run already; name a new directory.")


def _make_new(parent: Path, is_sweep: bool) -> Path:
    while True:
        stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        path = parent / f"{stamp}_{secrets.token_hex(3)}{'_sweep' if is_sweep else ''}"
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
