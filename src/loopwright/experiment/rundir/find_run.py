"""`find_run`: finds a run directory by the word ``last`` or by six hexadecimal digits in the directory's name.

This module imports neither torch nor Hydra, so that commands that only read can use it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from loopwright.errors import CheckpointError
from loopwright.experiment.jobs.job_settings import VALIDATION_LOOPS
from loopwright.experiment.rundir.directory import OUTPUTS
from loopwright.records import SWEEP_FILE, read_config

_LAST = "last"
_ID = re.compile(r"([0-9a-f]{6})(/\d+)?")
_CONFIG = "config.yaml"


def find_run(given: str) -> str:
    """Return the path of the run directory that the user named.

    - ``last`` is the training run in ``outputs/`` that was started or resumed most recently. Jobs of sweeps are
      ignored. A run without a checkpoint is chosen only if no run has a checkpoint.
    - ``1a2b3c`` is the run directory in ``outputs/`` whose name ends with these six hexadecimal digits.
    - ``1a2b3c/0`` is job 0 of the sweep whose directory name contains these digits.
    - ``last/best`` and ``1a2b3c/last`` name a checkpoint of the run.

    Existing paths and all other texts are returned unchanged.

    Args:
        given: text that the user typed.

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
            has_sweep = any(os.path.lexists(path / SWEEP_FILE) for path in _directories())
            remedy = "use loopwright sweep show last, or " if has_sweep else "expected "
            problem = f"no training{' except sweeps' if has_sweep else ''} in {OUTPUTS}/"
            raise CheckpointError(f"{given}: {problem}; {remedy}the path of a run directory.")
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
    """Return whether a run has saved a checkpoint."""
    return any((run_dir / "checkpoints").glob("step_*"))


def _trains(run_dir: Path) -> bool:
    """Return whether a run trains. If the configuration of the run cannot be read, return True."""
    try:
        loop = read_config(run_dir).get("loop")
    except CheckpointError:  # the command reads the file again and prints the error
        return True
    return not (isinstance(loop, Mapping) and loop.get("_target_") in VALIDATION_LOOPS)


def _directories() -> Iterator[Path]:
    """Yield all directories ``outputs/NAME`` and ``outputs/NAME/NAME``, except the jobs of a sweep ``outputs/NAME``.

    Symbolic links are not followed.
    """
    for parent in _subdirectories(OUTPUTS):
        yield parent
        if not os.path.lexists(parent / SWEEP_FILE):
            yield from _subdirectories(parent)


def _subdirectories(parent: Path) -> list[Path]:
    if not parent.is_dir():
        return []
    with os.scandir(parent) as entries:
        return [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
