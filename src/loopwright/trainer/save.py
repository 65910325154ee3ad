"""`RunSaver`: saves a run as its fits go along, and keeps of its checkpoints those that are to be kept."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from loopwright.checkpoint import (
    Checkpoint,
    Checkpointing,
    Contents,
    HostCopies,
    check_state,
    clean_leftovers,
    pack,
    plain_names,
    prune,
    step_folder,
    steps_in,
    unsaved_buffers,
    verify_checkpoint,
    write_contents,
)
from loopwright.engine.hook_table import call_hooks
from loopwright.engine.parts import Parts
from loopwright.errors import CheckpointError, SaveError
from loopwright.plan import Plan
from loopwright.run_state import Best
from loopwright.trainer.background import BackgroundTask
from loopwright.trainer.resume import find_run, read_run, run_state

_log = logging.getLogger("loopwright")

_LAZY = (UninitializedParameter, UninitializedBuffer)  # of shapes that the first batch decides


@dataclass(frozen=True, slots=True, kw_only=True)
class _Save:
    """A save between its beginning and its end.

    Attributes:
        step: that is saved.
        folder: of the checkpoint.
        contents: of it.
        best: step of the checkpoint that is kept as the best.
        best_before: the best one without this.
    """

    step: int
    folder: Path
    contents: Contents
    best: int | None
    best_before: Best | None


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
        self._root = step_folder(run_dir, 0).parent
        self._own_steps: set[int] = set()  # whose checkpoints are of this run
        self._whole_steps: set[int] = set()  # of these, whose checkpoints were written or read here
        self._has_looked = False
        self._had_run_dir = False
        self._may_go_on = settings.on_save_error == "continue"
        self._copies = HostCopies() if settings.background else None
        self._under_way: tuple[_Save, BackgroundTask] | None = None

    def prepare(self) -> None:
        """Make ready for a fit: see that it can be saved, and remove what killed runs left.

        Raises:
            SettingError: if the model holds what no checkpoint can.
            SaveError: if checkpoints cannot be saved where they are to be.
        """
        self._try(self.finish, may_go_on=True)  # what a fit that was left at once may have left under way
        model = self._parts.model
        for name, entries in (("model", plain_names(model)), ("buffers", unsaved_buffers(model))):
            made = {key: each for key, each in entries.items() if not isinstance(each, _LAZY)}
            check_state(made, name)
        if os.path.islink(self._root):
            raise SaveError(f"{self._root}: a link, which no resume follows; expected a folder, or none yet.")
        existing = next(path for path in (self._root, *self._root.absolute().parents) if os.path.exists(path))
        if not os.path.isdir(existing) or not os.access(existing, os.W_OK | os.X_OK):
            raise SaveError(f"{self._root}: {existing} cannot be written to; expected a folder to save checkpoints in.")
        self._had_run_dir = os.path.isdir(self._run_dir)
        clean_leftovers(self._root)

    def go_on_from(self, folder: Path, step: int) -> None:
        """The run goes on from a checkpoint: those up to it are its own where it lies among them, and no others."""
        is_own = self._root.is_dir() and os.path.samefile(folder.parent, self._root)
        self._own_steps = {each for each in steps_in(self._run_dir) if each <= step} if is_own else set()
        self._whole_steps = {step} & self._own_steps

    def save(self, plan: Plan | None) -> bool:
        """Save the present step, then remove what need not be kept any longer.

        In the background this begins when the save before has ended, whose error is raised or said now.

        Returns:
            Whether it was saved, or is being saved; if not, it was said, and the fit may go on.

        Raises:
            SaveError: if it cannot be written, and the fit shall stop then or is at its end.
        """
        state = self._parts.state
        is_last = plan is None or state.global_step == plan.stop_step or state.stop_reason is not None
        self.settle()
        return self._try(partial(self._save, plan), may_go_on=self._may_go_on and not is_last)

    def settle(self) -> None:
        """Wait for a save in the background to end, in the middle of a fit that may go on without it.

        Raises:
            SaveError: if it could not be written, and the fit shall stop then.
        """
        self._try(self.finish, may_go_on=self._may_go_on)

    def finish(self) -> None:
        """Wait for a save in the background to end.

        Raises:
            SaveError: if it could not be written.
        """
        if self._under_way is None:
            return
        save, task = self._under_way
        error = task.wait()  # where a signal ends the waiting, it is still under way
        self._under_way = None
        if error is not None:
            self._parts.log.note_lost(save.step, save.best_before)
            raise error
        self._conclude(save)

    def _try(self, act: Callable[[], None], *, may_go_on: bool) -> bool:
        """Whether ``act`` did not end in a `SaveError`, which is said where the fit may go on, and else raised."""
        try:
            act()
        except SaveError as error:
            if not may_go_on:
                raise
            newest = f"step {max(self._own_steps)}" if self._own_steps else "none"
            _log.warning("%s; going on all the same, the newest checkpoint is that of %s.", error, newest)
            return False
        return True

    def _save(self, plan: Plan | None) -> None:
        save = self._begin(plan)
        if self._settings.background:
            self._under_way = save, BackgroundTask(partial(self._carry_out, save))
            return
        try:
            self._carry_out(save)
        except BaseException:
            self._parts.log.note_lost(save.step, save.best_before)
            raise
        self._conclude(save)

    def _begin(self, plan: Plan | None) -> _Save:
        """Take from the run what is to be written; in the background, as copies."""
        log, step = self._parts.log, self._parts.state.global_step
        folder = step_folder(self._run_dir, step)
        if self._had_run_dir and not os.path.isdir(self._run_dir):
            # Made anew, it could lie under the mount point of a disk that has gone, and be hidden when that is back.
            raise SaveError(f"{folder}: not saved: {self._run_dir} was there and is gone")
        self._warn_of_later_ones(step)
        contents = pack(run_state(self._parts, plan), self._copies)
        if log.best_saved is not None and log.best_saved.step not in steps_in(self._run_dir):
            log.best_saved = None  # of another run directory, or removed by hand
        best_before = log.best_saved
        log.note_saved(step)
        best = None if log.best_saved is None else log.best_saved.step
        return _Save(step=step, folder=folder, contents=contents, best=best, best_before=best_before)

    def _carry_out(self, save: _Save) -> None:
        """Write, then prune; in the background this runs beside the fit, which touches nothing of it meanwhile."""
        write_contents(save.folder, save.contents, step=save.step, reads_back=self._settings.background)
        self._had_run_dir = True
        self._own_steps.add(save.step)
        self._whole_steps.add(save.step)
        if self._settings.keep_last is not None:
            self._prune(self._settings.keep_last, save.best)

    def _conclude(self, save: _Save) -> None:
        call_hooks(self._parts.hooks["on_after_save_checkpoint"], self._parts.trainer, save.folder)

    def _warn_of_later_ones(self, step: int) -> None:
        """Say, at the first save, that what another run left here would be taken for the newest of this one."""
        later = max(steps_in(self._run_dir), default=step)
        if later > step and not self._has_looked and self._is_whole(later):
            folder = step_folder(self._run_dir, later)
            _log.warning("%s was there before, and is later than what this fit saves: a resume takes it first.", folder)
        self._has_looked = True

    def _prune(self, keep_last: int, best: int | None) -> None:
        try:
            prune(
                self._run_dir,
                self._own_steps & steps_in(self._run_dir),
                keep_last=keep_last,
                keep_every=self._settings.keep_every,
                best=best,
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


def read_for_fit(
    parts: Parts,
    run_dir: Path | None,
    saver: RunSaver | None,
    ckpt_path: str | Path | None,
    init_from: str | Path | None,
) -> Checkpoint | None:
    """The checkpoint that a fit begins with, if any: one to go on from, or one for its weights alone.

    Raises:
        CheckpointError: if it cannot be used.
    """
    path = ckpt_path if init_from is None else init_from
    if path is None:
        return None
    checkpoint = read_run(parts, find_run(parts, path, run_dir), weights_only=ckpt_path is None)
    if saver is not None and ckpt_path is not None:
        saver.go_on_from(checkpoint.path, checkpoint.step)
    return checkpoint
