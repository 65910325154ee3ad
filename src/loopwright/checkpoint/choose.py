"""`choose`: chooses the best or the newest checkpoint of a run, and returns the reason."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from loopwright.checkpoint.encode import decode
from loopwright.checkpoint.files import MANIFEST, read_manifest
from loopwright.checkpoint.find import resolve
from loopwright.checkpoint.read import read_entries
from loopwright.errors import CheckpointError, on_one_line, refuse_type
from loopwright.records import step_folder
from loopwright.regular_files import read_regular
from loopwright.run_state import Best, read_best

FINISHED_FILE = "finished.json"  # state of a run after the validations of its last step, in the run directory
MAX_FINISHED_BYTES = 16 << 20
FINISHED_ERRORS = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, CheckpointError)
_BEST, _LAST = "best", "last"
_STEP_NAME = re.compile(r"step_\d+")


class Chosen(NamedTuple):
    """A checkpoint, and why it was chosen, such as ``best val/loss 0.07054``."""

    folder: Path
    reason: str


def choose(path: str | Path, *, prefers_best: bool = False, is_quiet: bool = False) -> Chosen:
    """Return the checkpoint to which a path refers.

    Args:
        path: a checkpoint; a run directory; or a run directory followed by ``best`` or ``last``, such as
            ``outputs/mine/best``.
        prefers_best: whether a run directory stands for its best checkpoint if this is known. Otherwise, it stands for
            its newest checkpoint.
        is_quiet: whether to omit the warning that lists newer, damaged checkpoints.

    Raises:
        CheckpointError: if there is no such checkpoint, or if the path ends in ``best`` and no best is known.
    """
    path = Path(path)
    name = path.name if is_named(path) else None
    run_dir = path if name is None else path.parent
    newest = resolve(run_dir, is_quiet=is_quiet)
    if name is None and newest == path:
        return Chosen(newest, "as given")
    if name == _BEST or (prefers_best and name is None):
        best = find_best(newest)
        if best is not None:
            return Chosen(resolve(step_folder(newest.parent.parent, best.step)), f"best {best.name} {best.value:.4g}")
        if name == _BEST:
            problem = "no best checkpoint is known: no validated step of this run has a checkpoint"
            raise CheckpointError(f"{path}: {problem}; use {run_dir} for the newest checkpoint.")
    return Chosen(newest, "newest checkpoint")


def is_named(path: str | Path) -> bool:
    """Return whether a path ends in the word ``best`` or ``last``, and is no checkpoint or run directory itself.

    The result is also True if the path is a link, or a file with this name: only a directory of a checkpoint or run
    gives False.
    """
    path = Path(path)
    if path.name not in (_BEST, _LAST):
        return False
    own = (path / MANIFEST, path / "config.yaml", step_folder(path, 0).parent)
    return path.is_symlink() or not any(map(os.path.lexists, own))


def within(run_dir: Path, given: object) -> Path:
    """Return the path of the checkpoint that the user typed for a run.

    Args:
        run_dir: directory of the run.
        given: ``best`` or ``last``; a step, such as 500; the name of a folder, such as ``step_00000500``; another path;
            or None for the run itself.

    Raises:
        SettingTypeError: if ``given`` is something else.
    """
    if given is None:
        return run_dir
    if str(given).isdecimal() and not os.path.lexists(str(given)):
        return step_folder(run_dir, int(str(given)))
    if not isinstance(given, str):
        raise refuse_type("ckpt_path", given, "a path, a step, best or last")
    if given in (_BEST, _LAST):
        return run_dir / given
    is_own = _STEP_NAME.fullmatch(given) is not None and not os.path.lexists(given)
    return step_folder(run_dir, 0).parent / given if is_own else Path(given)


def find_best(newest: Path) -> Best | None:
    """Return the best value of the monitored metric among the steps of a run that have a checkpoint.

    It is read from the newest checkpoint, or from ``finished.json`` if the run has finished with this checkpoint.

    Args:
        newest: newest checkpoint of the run.

    Returns:
        None if no step was validated, or if the best step no longer has a checkpoint.

    Raises:
        CheckpointError: if the state of the checkpoint cannot be read.
    """
    try:
        metrics = read_finished(newest).get("metrics")
    except FINISHED_ERRORS:
        metrics = None
    metrics = metrics or read_entries(newest, ["metrics"]).state.get("metrics")
    try:
        mark = read_best(metrics.get("best_saved")) if isinstance(metrics, Mapping) else None
    except (TypeError, ValueError):
        return None
    if mark is None or not step_folder(newest.parent.parent, mark.step).is_dir():
        return None
    return replace(mark, name=on_one_line(mark.name, 80))


def read_finished(checkpoint: Path) -> dict[str, Any]:
    """Return the content of ``finished.json`` if it belongs to a checkpoint; otherwise an empty mapping.

    Raises:
        OSError: if there is no such file, or if it cannot be read. For a damaged file, another of `FINISHED_ERRORS`.
    """
    file = checkpoint.absolute().parent.parent / FINISHED_FILE
    found: dict[str, Any] = decode(json.loads(read_regular(file, MAX_FINISHED_BYTES)), {})
    return found if found["manifest_sha256"] == manifest_digest(checkpoint) else {}


def manifest_digest(folder: Path) -> str:
    """Return the SHA-256 of the manifest of a checkpoint, which contains the digests of its files.

    Raises:
        CheckpointError: if the manifest cannot be read.
    """
    return hashlib.sha256(read_manifest(folder).to_bytes()).hexdigest()
