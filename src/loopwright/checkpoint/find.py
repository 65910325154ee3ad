"""Functions that find the newest checkpoint of a run, and the matches of a pattern."""

from __future__ import annotations

import glob
import logging
import os
import re
import shlex
import stat
from collections.abc import Sequence
from pathlib import Path

from loopwright.checkpoint.files import MANIFEST, STEP_FOLDER, TEMPORARY_PREFIX, check_folder
from loopwright.checkpoint.read import verify_checkpoint
from loopwright.errors import CheckpointError, did_you_mean

_log = logging.getLogger("loopwright")

_FOLDER = "checkpoints"


def resolve(path: str | Path, *, is_quiet: bool = False) -> Path:
    """Return the path of the checkpoint to which ``path`` refers.

    ``path`` is a checkpoint, a run directory, or the folder of checkpoints in a run directory.

    For a run, the result is the newest checkpoint that passes verification. If newer checkpoints fail verification, a
    warning lists their problems, unless ``is_quiet`` is True. A path to a checkpoint is returned without verification,
    because reading the checkpoint verifies it.

    Raises:
        CheckpointError: if there is no checkpoint, or if none passes verification.
    """
    path = Path(path)
    problem = folder_problem(path)
    if problem is not None:
        raise CheckpointError(f"{path}: {problem}")
    is_temporary = path.name.startswith(TEMPORARY_PREFIX)
    if STEP_FOLDER.fullmatch(path.name) or (os.path.lexists(path / MANIFEST) and not is_temporary):
        return path
    root = path / _FOLDER if os.path.lexists(path / _FOLDER) else path
    if root != path:
        check_folder(root)
    try:
        candidates = [child for child in root.iterdir() if STEP_FOLDER.fullmatch(child.name) and _is_folder(child)]
    except OSError as error:
        raise CheckpointError(f"{root}: {error.strerror}") from error
    faults = []
    for candidate in sorted(candidates, key=_natural, reverse=True):
        try:
            verify_checkpoint(candidate)
        except CheckpointError as error:
            faults.append(str(error))
            continue
        if faults and not is_quiet:
            _log.warning("%s; using %s instead.", "; ".join(faults), candidate.name)
        return candidate
    if faults:
        raise CheckpointError(f"{root}: no checkpoint passes verification: {'; '.join(faults)}")
    raise CheckpointError(f"{path}: contains no checkpoint; expected a checkpoint, a run directory or its {_FOLDER}.")


def folder_problem(path: Path) -> str | None:
    """Describe why ``path`` can be neither a checkpoint nor a run directory. Return None if it is a folder."""
    if path.is_dir():
        return None
    if not os.path.lexists(path):
        near = did_you_mean(path.name, os.listdir(path.parent)) if path.parent.is_dir() else ""
        return f"no such folder; expected a checkpoint or a run directory.{near}"
    problem = "a file; expected a checkpoint folder or a run directory."
    if os.path.lexists(path.parent / MANIFEST):
        return f"{problem} Did you mean {path.parent}?"
    if path.suffix == ".safetensors":
        return f"{problem} Give the run directory from which the file was exported."
    return f"{problem} For weights that torch.save wrote: loopwright import-weights {shlex.quote(str(path))}"


def expand(paths: str | Path | Sequence[str | Path]) -> list[Path]:
    """Return the checkpoints to which paths and glob patterns refer, without duplicates.

    The order is natural: ``step_9`` comes before ``step_10``. Each path that is not a pattern is passed to `resolve`.
    Among the matches of a pattern, only checkpoints (folders with a manifest) are returned.

    Raises:
        CheckpointError: if a path or pattern refers to no checkpoint; also if ``paths`` is empty.
    """
    found: set[Path] = set()
    for path in [paths] if isinstance(paths, str | Path) else paths:
        if os.path.lexists(path) or not glob.has_magic(str(path)):
            found.add(resolve(path))
            continue
        matches = {Path(match) for match in glob.glob(str(path), recursive=True)}
        checkpoints = {match for match in matches if _is_checkpoint(match)}
        if not checkpoints:
            what = f"matches {len(matches)} path(s), but no checkpoint" if matches else "matches nothing"
            raise CheckpointError(f"{path}: {what}; expected a pattern such as RUN/{_FOLDER}/step_*.")
        found |= checkpoints
    if not found:
        raise CheckpointError("ckpt_paths=[]: expected at least one checkpoint.")
    return sorted(found, key=_natural)


def _is_checkpoint(path: Path) -> bool:
    return not path.name.startswith(TEMPORARY_PREFIX) and _is_folder(path) and os.path.lexists(path / MANIFEST)


def _is_folder(path: Path) -> bool:
    """Whether ``path`` is a directory and not a symbolic link."""
    return stat.S_ISDIR(os.lstat(path).st_mode) if os.path.lexists(path) else False


def _natural(path: Path) -> tuple[tuple[tuple[str, int], ...], ...]:
    """Return a sort key that orders numbers in names by value."""
    return tuple(
        tuple((text, int(digits or 0)) for text, digits in re.findall(r"(\D*)(\d*)", part)) for part in path.parts
    )
