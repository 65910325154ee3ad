"""Where checkpoints lie: the folder of a step, the newest good one of a run, the ones that a pattern means."""

from __future__ import annotations

import glob
import logging
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path

from loopwright.checkpoint.files import MANIFEST, STEP_FOLDER, TEMPORARY_PREFIX, check_folder
from loopwright.checkpoint.read import verify_checkpoint
from loopwright.errors import CheckpointError, did_you_mean

_log = logging.getLogger("loopwright")

_FOLDER = "checkpoints"


def step_folder(run_dir: Path, step: int) -> Path:
    """The checkpoint of one step of a run."""
    return run_dir / _FOLDER / f"step_{step:08d}"


def steps_in(run_dir: Path) -> set[int]:
    """The steps that have a folder in a run directory, whatever is in it."""
    root = step_folder(run_dir, 0).parent
    names = [child.name for child in root.iterdir() if _is_folder(child)] if _is_folder(root) else []
    steps = {int(match[1]) for match in map(STEP_FOLDER.fullmatch, names) if match}
    return {step for step in steps if step_folder(run_dir, step).name in names}


def resolve(path: str | Path) -> Path:
    """The checkpoint that a user means by a checkpoint, a run directory, or its folder of checkpoints.

    Of a run the newest good one is taken; each newer one that does not verify is said in one line. A checkpoint
    named itself is not verified here: reading it does that.

    Raises:
        CheckpointError: if there is none, or none that is good.
    """
    path = Path(path)
    if not path.is_dir():
        problem = "not a folder" if os.path.lexists(path) else "no such folder"
        near = did_you_mean(path.name, os.listdir(path.parent)) if path.parent.is_dir() else ""
        raise CheckpointError(f"{path}: {problem}; expected a checkpoint or a run directory.{near}")
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
        if faults:
            _log.warning("%s; going back to %s.", "; ".join(faults), candidate.name)
        return candidate
    if faults:
        raise CheckpointError(f"{root}: no good checkpoint: {'; '.join(faults)}")
    raise CheckpointError(f"{path}: no checkpoint in it; expected a checkpoint, a run directory or its {_FOLDER}.")


def expand(paths: str | Path | Sequence[str | Path]) -> list[Path]:
    """The checkpoints that paths and glob patterns mean, each once, in natural order (``step_9`` before ``step_10``).

    A path is understood as by `resolve`. Of what a pattern matches, the checkpoints count: folders with a manifest.

    Raises:
        CheckpointError: if a path or pattern means no checkpoint.
    """
    found: set[Path] = set()
    for path in [paths] if isinstance(paths, str | Path) else paths:
        if os.path.lexists(path) or not glob.has_magic(str(path)):
            found.add(resolve(path))
            continue
        matches = {Path(match) for match in glob.glob(str(path), recursive=True)}
        checkpoints = {match for match in matches if _is_checkpoint(match)}
        if not checkpoints:
            what = f"matches no checkpoint ({len(matches)} other paths)" if matches else "matches nothing"
            raise CheckpointError(f"{path}: {what}; expected a pattern such as RUN/{_FOLDER}/step_*.")
        found |= checkpoints
    if not found:
        raise CheckpointError("ckpt_paths=[]: expected one checkpoint or more.")
    return sorted(found, key=_natural)


def _is_checkpoint(path: Path) -> bool:
    return not path.name.startswith(TEMPORARY_PREFIX) and _is_folder(path) and os.path.lexists(path / MANIFEST)


def _is_folder(path: Path) -> bool:
    """Whether ``path`` is a directory itself; a link to one is not."""
    return stat.S_ISDIR(os.lstat(path).st_mode) if os.path.lexists(path) else False


def _natural(path: Path) -> tuple[tuple[tuple[str, int], ...], ...]:
    """A key that orders numbers in names by value."""
    return tuple(
        tuple((text, int(digits or 0)) for text, digits in re.findall(r"(\D*)(\d*)", part)) for part in path.parts
    )
