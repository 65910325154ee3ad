"""`prune`: of a run's checkpoints, remove those that need not be kept."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection
from pathlib import Path

from loopwright.checkpoint.files import read_manifest
from loopwright.checkpoint.find import step_folder
from loopwright.checkpoint.write import remove_checkpoint
from loopwright.errors import CheckpointError


def prune(
    run_dir: Path,
    steps: Collection[int],
    *,
    keep_last: int,
    keep_every: int | None,
    best: int | None,
    is_whole: Callable[[int], bool],
) -> None:
    """Remove the checkpoints of ``steps`` that need not be kept.

    Args:
        run_dir: of the run.
        steps: those of its own checkpoints.
        keep_last: how many of the newest whole ones stay; while there are not so many, all stay.
        keep_every: multiples of this stay.
        best: this one stays.
        is_whole: whether the checkpoint of a step can be relied on; asked of no more than are needed.

    Raises:
        OSError: if one cannot be removed; it is no checkpoint any more, or untouched, and the others are removed.
    """
    newest = [*itertools.islice(filter(is_whole, sorted(steps, reverse=True)), keep_last)]
    if len(newest) < keep_last:
        return
    errors = []
    for step in sorted(steps):
        is_kept = step >= newest[-1] or step == best or (keep_every is not None and step % keep_every == 0)
        if not is_kept and _is_checkpoint(step_folder(run_dir, step)):
            try:
                remove_checkpoint(step_folder(run_dir, step))
            except OSError as error:
                errors.append(error)
    if errors:
        raise errors[0]


def _is_checkpoint(folder: Path) -> bool:
    """Whether a folder holds a checkpoint at all, whole or damaged; if not, it is nobody's to remove."""
    try:
        read_manifest(folder)
    except CheckpointError:
        return False
    return True
