"""`choose`: chooses the best or the newest checkpoint of a run, and says why."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from loopwright.checkpoint.encode import decode
from loopwright.checkpoint.files import read_manifest
from loopwright.checkpoint.find import resolve, step_folder
from loopwright.checkpoint.read import read_entries
from loopwright.errors import CheckpointError, on_one_line
from loopwright.regular_files import read_regular
from loopwright.run_state import Best, read_best

FINISHED_FILE = "finished.json"  # state of a run after the validations of its last step, in the run directory
MAX_FINISHED_BYTES = 16 << 20
FINISHED_ERRORS = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, CheckpointError)
_BEST, _LAST = "best", "last"


class Chosen(NamedTuple):
    """A checkpoint, and why it was chosen, such as ``best val/loss 0.07054``."""

    folder: Path
    reason: str


def choose(path: str | Path, *, prefers_best: bool = False, is_quiet: bool = False) -> Chosen:
    """Return the checkpoint to which a path refers.

    Args:
        path: a checkpoint; a run directory; or one of both names ``best`` and ``last`` in a run directory, such as
            ``outputs/mine/best``, unless such a path exists.
        prefers_best: whether the best checkpoint of a run directory is chosen if it is known, otherwise the newest.
        is_quiet: whether no warning lists newer checkpoints that are damaged.

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
    """Return whether a path ends in ``best`` or ``last``, and does not exist."""
    return Path(path).name in (_BEST, _LAST) and not os.path.lexists(path)


def within(run_dir: Path, path: str | None) -> Path:
    """Return the path of a checkpoint that was typed for a run: ``best``, ``last``, another path, or None."""
    return run_dir if path is None else run_dir / path if path in (_BEST, _LAST) else Path(path)


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
