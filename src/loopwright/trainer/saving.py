"""`RunSaver`: saves a run as its fits go along, and keeps of its checkpoints those that are to be kept."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from loopwright.checkpoint import Checkpointing, clean_leftovers, prune, step_folder, steps_in, verify_checkpoint
from loopwright.engine.parts import Parts
from loopwright.errors import CheckpointError
from loopwright.plan import Plan
from loopwright.trainer.checkpoints import save_run

_log = logging.getLogger("loopwright")


class RunSaver:
    """Saves into a run directory.

    What it knows of earlier checkpoints it knows from the disk and from the checkpoint that a run goes on from: there
    is no list of them that could say otherwise.

    Args:
        parts: of the run.
        settings: when to save and what to keep.
        run_dir: of the run.
    """

    def __init__(self, parts: Parts, settings: Checkpointing, run_dir: Path) -> None:
        self._parts = parts
        self._settings = settings
        self._run_dir = run_dir
        self._own_steps: set[int] = set()  # whose checkpoints are of this run
        self._whole_steps: set[int] = set()  # of these, whose checkpoints were written or read here
        self._has_looked = False

    def prepare(self) -> None:
        """Make ready for a fit: remove what killed runs left.

        Raises:
            CheckpointError: if something of it cannot be removed.
        """
        clean_leftovers(step_folder(self._run_dir, 0).parent)

    def go_on_from(self, folder: Path, step: int) -> None:
        """The run goes on from a checkpoint: those up to it are its own where it lies among them, and no others."""
        root = step_folder(self._run_dir, 0).parent
        is_own = root.is_dir() and os.path.samefile(folder.parent, root)
        self._own_steps = {each for each in steps_in(self._run_dir) if each <= step} if is_own else set()
        self._whole_steps = {step} & self._own_steps

    def save(self, plan: Plan | None) -> None:
        """Save the present step, then remove what need not be kept any longer.

        Raises:
            SaveError: if it cannot be written.
        """
        step = self._parts.state.global_step
        save_run(self._parts, step_folder(self._run_dir, step), plan)
        self._own_steps.add(step)
        self._whole_steps.add(step)
        self._parts.log.note_saved(step)
        self._warn_of_later_ones(step)
        if self._settings.keep_last is not None:
            self._prune(self._settings.keep_last)

    def _warn_of_later_ones(self, step: int) -> None:
        """Say, at the first save, that what another run left here would be taken for the newest of this one."""
        later = max(steps_in(self._run_dir), default=step)
        if later > step and not self._has_looked and self._is_whole(later):
            folder = step_folder(self._run_dir, later)
            _log.warning("%s was there before, and is later than what this fit saves: a resume takes it first.", folder)
        self._has_looked = True

    def _prune(self, keep_last: int) -> None:
        there = steps_in(self._run_dir)
        best = self._parts.log.best_saved
        if best is not None and best.step not in there:  # of another run directory, or removed by hand
            self._parts.log.best_saved = best = None
        try:
            prune(
                self._run_dir,
                self._own_steps & there,
                keep_last=keep_last,
                keep_every=self._settings.keep_every,
                best=None if best is None else best.step,
                is_whole=self._is_whole,
            )
        except OSError as error:
            _log.warning("%s: an older checkpoint cannot be removed: %s.", self._run_dir, error.strerror or error)

    def _is_whole(self, step: int) -> bool:
        if step not in self._whole_steps:
            try:
                verify_checkpoint(step_folder(self._run_dir, step))
            except CheckpointError:
                return False
            self._whole_steps.add(step)
        return True
