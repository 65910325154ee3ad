"""`find_sweep`: finds the directory of a sweep by the word ``last`` or by six digits. `read_jobs` reads ``jobs=…``."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from loopwright.errors import CheckpointError, SettingError
from loopwright.experiment.console.command_line import shell_line, words_on
from loopwright.experiment.rundir.directory import OUTPUTS
from loopwright.experiment.sweep.index import SweepIndex
from loopwright.experiment.sweep.index_file import INDEX_FILE

_ID = re.compile(r"[0-9a-f]{6}")
_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


def find_sweep(given: str) -> str:
    """Return the path of the sweep that the user named.

    - ``last`` is the sweep in ``outputs/`` whose index was written most recently.
    - ``1a2b3c`` is the sweep in ``outputs/`` whose name contains these six hexadecimal digits.

    Existing paths and all other texts are returned unchanged.

    Raises:
        CheckpointError: if there is no such sweep.
    """
    if os.path.lexists(given) or (given != "last" and not _ID.fullmatch(given)):
        return given
    sweeps = [path.parent for path in OUTPUTS.glob(f"*/*_sweep/{INDEX_FILE}")]
    if given == "last":
        if not sweeps:
            raise CheckpointError(f"last: no sweep in {OUTPUTS}/; expected the directory of a sweep.")
        return str(max(sweeps, key=lambda path: (path / INDEX_FILE).stat().st_mtime_ns))
    named = [path for path in sweeps if path.name.endswith(f"_{given}_sweep")]
    if len(named) != 1:
        raise CheckpointError(f"{given}: no such path, and no sweep in {OUTPUTS}/ has these digits in its name.")
    return str(named[0])


def refuse_sweep(verb: str, path: str, permissions: Sequence[str]) -> None:
    """Refuse the directory of a sweep in a command on a run directory.

    Args:
        verb: command, such as ``validate``.
        path: path that the user typed.
        permissions: flags of the packages that the user trusts.

    Raises:
        CheckpointError: if the directory contains a sweep and no run.
    """
    directory = Path(path)
    if not os.path.lexists(directory / INDEX_FILE) or os.path.lexists(directory / "config.yaml"):
        return
    remedy = f"expected the directory of a job, such as {directory / '0'}"
    if verb == "resume":
        command = shell_line(["loopwright", "sweep", *words_on("resume", directory, permissions)])
        remedy = f"to run the jobs that are left, use {command}"
    raise CheckpointError(f"{directory}: contains a sweep; {remedy}.")


def read_jobs(given: str | None, index: SweepIndex) -> list[int] | None:
    """Return the numbers of the jobs that ``jobs=…`` names; None if it was not given.

    Args:
        given: numbers and ranges of numbers, separated by commas, such as ``3,7-9``, or a state such as ``failed``.
        index: index of the sweep.

    Raises:
        SettingError: if ``given`` names no job.
    """
    if given is None:
        return None
    by_state = [job.number for job in index.jobs if job.state == given]
    if by_state:
        return by_state
    found: list[int] = []
    for part in given.strip("[]").replace(" ", "").split(","):
        match = _RANGE.fullmatch(part)
        if match is None:
            states = ", ".join(sorted({job.state for job in index.jobs}))
            problem = f"expected numbers such as 3,7-9, or a state of the jobs: {states}"
            raise SettingError("jobs", f"={given}: {problem}.")
        first, last = int(match[1]), int(match[2] or match[1])
        if not first <= last < len(index.jobs):
            raise SettingError("jobs", f"={given}: expected numbers from 0 to {len(index.jobs) - 1}.")
        found += range(first, last + 1)
    return sorted(set(found))


def read_sweep_directory(path: str) -> Path:
    """Return the path of a sweep as it was given.

    Raises:
        CheckpointError: if there is no such directory.
    """
    directory = Path(path)
    if not directory.is_dir():
        raise CheckpointError(f"{path}: {'a file' if directory.exists() else 'no such folder'}; expected a sweep.")
    return directory
