"""Functions that name and list the checkpoint folders of a run. They import no torch."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

_FOLDER = "checkpoints"
_STEP_FOLDER = re.compile(r"step_(\d+)")


def step_folder(run_dir: Path, step: int) -> Path:
    """Return the path of the checkpoint that a run saves at ``step``."""
    return run_dir / _FOLDER / _folder_name(step)


def steps_in(run_dir: Path) -> set[int]:
    """Return the steps with a checkpoint folder in a run directory; the contents of the folders are not checked."""
    root = run_dir / _FOLDER
    if not os.path.lexists(root) or not stat.S_ISDIR(os.lstat(root).st_mode):
        return set()
    with os.scandir(root) as entries:  # this does not read the status of each folder
        names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    found = [(match[0], int(match[1])) for match in map(_STEP_FOLDER.fullmatch, names) if match]
    return {step for name, step in found if name == _folder_name(step)}


def _folder_name(step: int) -> str:
    return f"step_{step:08d}"
