"""Functions that keep the files of an earlier attempt at a job before the job begins again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from loopwright.errors import SaveError
from loopwright.records import steps_in
from loopwright.run_lock import hold

_KEPT = ("config.yaml", "plan.txt")  # files that are written before the sweep begins
_HYDRA = ".hydra"
_SUMMARY = "summary.json"


def has_begun(directory: Path) -> bool:
    """Return whether an attempt at a job has written files of a run into the directory of the job."""
    return os.path.lexists(directory / _SUMMARY)


def set_aside(directory: Path) -> Path:
    """Rename the directory of a job to ``N.attemptK``, and make a new directory for the next attempt.

    The new directory has copies of the files that were written before the sweep began.

    Returns:
        The new path of the old directory.

    Raises:
        CheckpointError: if a process uses the directory.
        SaveError: if the directory cannot be renamed, or a file cannot be copied.
    """
    number = 1
    while os.path.lexists(place := directory.with_name(f"{directory.name}.attempt{number}")):
        number += 1
    new = directory.with_name(f"{directory.name}.new")
    try:
        with hold(directory):
            if os.path.lexists(new):  # left by a process that was killed
                shutil.rmtree(new)
            new.mkdir()
            for name in _KEPT:
                if (directory / name).is_file():
                    shutil.copyfile(directory / name, new / name, follow_symlinks=False)
            if (directory / _HYDRA).is_dir():
                shutil.copytree(directory / _HYDRA, new / _HYDRA, symlinks=True)
            os.rename(directory, place)
            os.rename(new, directory)
    except OSError as error:
        raise SaveError(f"{directory}: cannot be set aside: {error.strerror or error}") from error
    return place


def set_aside_unsaved(directory: Path) -> None:
    """If an earlier attempt at a job has saved no checkpoint, rename its directory, and make a new one.

    Raises:
        CheckpointError: if a process uses the directory.
        SaveError: if the directory cannot be renamed, or a file cannot be copied.
    """
    if has_begun(directory) and not steps_in(directory):
        set_aside(directory)
