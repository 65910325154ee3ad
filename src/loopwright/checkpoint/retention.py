"""`prune`: removes the checkpoints of a run that its `Checkpointing` settings do not keep."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection
from pathlib import Path

from loopwright.checkpoint.files import read_manifest
from loopwright.checkpoint.write import remove_checkpoint
from loopwright.errors import CheckpointError
from loopwright.records import step_folder


def prune(
    run_dir: Path,
    steps: Collection[int],
    *,
    keep_last: int,
    keep_every: int | None,
    best: int | None,
    is_whole: Callable[[int], bool],
) -> None:
    """Remove the checkpoints of ``steps`` that the settings do not keep.

    Args:
        run_dir: run directory that contains the checkpoints.
        steps: steps of the checkpoints that this run wrote.
        keep_last: number of the newest valid checkpoints to keep. If fewer checkpoints are valid, nothing is removed.
        keep_every: number of steps; a checkpoint is kept if its step is a multiple of this number. None: this rule
            keeps no checkpoints.
        best: step of the best checkpoint, which is kept; None: the best step is not known.
        is_whole: function that returns whether the checkpoint of a step is valid. The function is called for as few
            steps as possible.

    Raises:
        OSError: if a checkpoint cannot be removed. This checkpoint is then either unchanged, or its folder no longer
            has the name of a checkpoint. The other checkpoints are still removed.
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
    """Whether a folder has a valid manifest; its other files may be damaged. `prune` removes no other folder."""
    try:
        read_manifest(folder)
    except CheckpointError:
        return False
    return True
