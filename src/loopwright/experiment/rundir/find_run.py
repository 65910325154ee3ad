"""`find_run`: finds a run directory by the word ``last`` or by the six hexadecimal digits in its name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from loopwright.errors import CheckpointError, SettingError
from loopwright.experiment.jobs.job_settings import VALIDATION_LOOPS
from loopwright.experiment.jobs.recorded import read_recorded
from loopwright.experiment.rundir.directory import OUTPUTS

_LAST = "last"
_ID = re.compile(r"([0-9a-f]{6})(/\d+)?")
_CONFIG = "config.yaml"


def find_run(given: str) -> str:
    """Return the path of the run directory to which ``given`` refers.

    Args:
        given: path of a run directory or checkpoint, ``last``, or the six hexadecimal digits at the end of the name of
            a run directory in ``outputs/``. ``last`` is the training in ``outputs/`` that was started or resumed most
            recently; jobs of sweeps, and runs without a checkpoint, are not considered. ``1a2b3c/0`` is job 0 of the
            sweep whose name contains these digits. A checkpoint of the run can be added: ``last/best`` or
            ``1a2b3c/last``. An existing path and any other text are returned unchanged.

    Raises:
        CheckpointError: if no run, or more than one run, is found for ``last`` or for six digits.
    """
    if os.path.lexists(given):
        return given
    head, _, checkpoint = given.rpartition("/")
    if head and checkpoint in ("best", "last"):
        return f"{find_run(head)}/{checkpoint}"
    if given == _LAST:
        runs = [path for path in _directories() if (path / _CONFIG).is_file()]
        newest = sorted(runs, key=lambda path: (path / _CONFIG).stat().st_mtime_ns, reverse=True)
        trained = [path for path in newest if _trains(path)]
        found = next((path for path in trained if _has_checkpoints(path)), trained[0] if trained else None)
        if found is None:
            raise CheckpointError(f"{given}: no training in {OUTPUTS}/; expected the path of a run directory.")
        return str(found)
    typed = _ID.fullmatch(given)
    if typed is None:
        return given
    ends = (f"_{typed[1]}", f"_{typed[1]}_sweep")
    named = [path for path in _directories() if path.name.endswith(ends)]
    if len(named) != 1:
        listed = "; ".join(map(str, sorted(named)))
        problem = (
            f"the names of several run directories contain {typed[1]}: {listed}"
            if named
            else f"no such path, and no name of a run directory in {OUTPUTS}/ ends with {typed[1]}"
        )
        raise CheckpointError(f"{given}: {problem}.")
    return f"{named[0]}{typed[2] or ''}"


def _has_checkpoints(run_dir: Path) -> bool:
    """Return whether a run has saved a checkpoint. A run that was refused before its first step has none."""
    return any((run_dir / "checkpoints").glob("step_*"))


def _trains(run_dir: Path) -> bool:
    """Return whether the configuration of a run contains a training loop, or cannot be read."""
    try:
        loop = read_recorded(run_dir).get("loop")
    except (SettingError, CheckpointError):  # the command reads the file again, and reports the error
        return True
    return not (isinstance(loop, Mapping) and loop.get("_target_") in VALIDATION_LOOPS)


def _directories() -> Iterator[Path]:
    """Yield the directories in ``outputs/``, and the directories in them. Symbolic links are not followed."""
    for parent in _subdirectories(OUTPUTS):
        yield parent
        yield from _subdirectories(parent)


def _subdirectories(parent: Path) -> list[Path]:
    if not parent.is_dir():
        return []
    with os.scandir(parent) as entries:
        return [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
