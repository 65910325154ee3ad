"""`RunSaver`, which saves checkpoints of a run during its fits, and removes checkpoints that need not be kept."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from loopwright.checkpoint import (
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
from loopwright.engine.state import gather_state
from loopwright.errors import CheckpointError, SaveError, refuse
from loopwright.plan import Plan
from loopwright.run_state import Best
from loopwright.trainer.background import BackgroundTask
from loopwright.trainer.finished import remove_finished, write_finished
from loopwright.trainer.resume import run_state

_log = logging.getLogger("loopwright")

_LAZY = (UninitializedParameter, UninitializedBuffer)  # the first batch determines their shapes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Save:
    """A checkpoint to be written.

    Attributes:
        step: step of the checkpoint.
        folder: folder of the checkpoint.
        contents: contents of its files.
        best: step of the checkpoint with the best metric, which is kept; None if no saved step has been validated.
        best_before: the best value of the monitored metric among the steps saved before; None: there is no such value.
        keep_every: number of steps; a checkpoint is kept if its step is a multiple of this number; None: off.
    """

    step: int
    folder: Path
    contents: Contents
    best: int | None
    best_before: Best | None
    keep_every: int | None


class RunSaver:
    """Saves the checkpoints of a run into its run directory.

    Earlier checkpoints of the run are found by listing the run directory. After a resume, these are the checkpoints up
    to the resumed step. No separate index is kept that could disagree with the directory.

    Args:
        parts: objects of this run.
        settings: settings that say when to save, and which checkpoints to keep.
        run_dir: run directory.
    """

    def __init__(self, parts: Parts, settings: Checkpointing, run_dir: Path) -> None:
        self._parts = parts
        self._settings = settings
        self._run_dir = run_dir
        self._root = step_folder(run_dir, 0).parent
        self._own_steps: set[int] = set()  # steps of the checkpoints of this run
        self._whole_steps: set[int] = set()  # steps of the checkpoints that this process has written or verified
        self._steps_by_hand: set[int] = set()  # steps that `Trainer.save_checkpoint` saved in this run directory
        self._has_begun = False  # whether a fit has begun in the run directory
        self._has_looked = False
        self._had_run_dir = False
        self._continues = settings.on_save_error == "continue"
        self._copies = HostCopies() if settings.background else None
        self._background: tuple[_Save, BackgroundTask] | None = None  # the save that is in progress

    def prepare(self, *, resumes: bool) -> None:
        """Prepare for a fit: check that checkpoints can be saved, and remove unfinished checkpoints of killed runs.

        Args:
            resumes: whether the fit resumes a run; `resume_from` is then called later.

        Raises:
            SettingError: if the state of the model has a value that a checkpoint cannot contain, or if the run
                directory contains checkpoints of another run.
            SaveError: if the checkpoints cannot be saved in the run directory.
        """
        try:
            self.wait()  # a second signal may have ended the last fit during a save
        except SaveError as error:
            self._warn(error)
        model = self._parts.model
        for name, entries in (("model", plain_names(model)), ("buffers", unsaved_buffers(model))):
            made = {key: each for key, each in entries.items() if not isinstance(each, _LAZY)}
            check_state(made, name)
        if os.path.islink(self._root):
            raise SaveError(f"{self._root}: a symbolic link, which a resume does not follow; expected a folder.")
        existing = next(path for path in (self._root, *self._root.absolute().parents) if os.path.exists(path))
        if not os.path.isdir(existing) or not os.access(existing, os.W_OK | os.X_OK):
            raise SaveError(f"{self._root}: {existing} is not a folder in which checkpoints can be written.")
        if not resumes:
            self._begin()
        self._had_run_dir = os.path.isdir(self._run_dir)
        clean_leftovers(self._root)

    def check_state(self, plan: Plan) -> None:
        """Refuse a state that a checkpoint cannot contain. Called before the first step, so that no step is lost.

        Only entries that a hook adds during a save, and entries that a later step changes, are found by the save.

        Raises:
            SettingError: if the state of a scheduler, the optimizer, the dataloader or a callback has such a value. The
                message contains the path of the value.
        """
        check_state(gather_state(self._parts, plan.settings()), "")

    def resume_from(self, folder: Path, step: int) -> None:
        """Note the checkpoint that the run resumes from.

        If this checkpoint is in the run directory, all checkpoints there up to its step belong to the run, and later
        ones are replaced when the run saves their steps again.

        Raises:
            SettingError: if this checkpoint is elsewhere, and the run directory contains checkpoints of another run.
        """
        is_own = self._root.is_dir() and os.path.samefile(folder.parent, self._root)
        if is_own:
            self._has_begun = True
        self._begin()
        self._own_steps = {each for each in steps_in(self._run_dir) if each <= step} if is_own else set()
        self._whole_steps = {step} & self._own_steps

    def note_saved_by_hand(self, folder: Path, step: int) -> None:
        """Note that `Trainer.save_checkpoint` saves a checkpoint, which may be in the run directory."""
        if folder.absolute() == step_folder(self._run_dir, step).absolute():
            self._steps_by_hand.add(step)

    def _begin(self) -> None:
        """Refuse a run directory with checkpoints of another run when the first fit begins.

        Otherwise the saves would replace the checkpoints of the other run, and "last" could be a checkpoint of either.
        """
        others = sorted(steps_in(self._run_dir) - self._own_steps - self._steps_by_hand)
        if others and not self._has_begun:
            names = [step_folder(self._run_dir, step).name for step in others]
            listed = ", ".join(names if len(names) < 3 else [names[0], "…", names[-1]])
            raise refuse(
                "run_dir",
                str(self._run_dir),
                f"a directory without checkpoints of another run, found {listed}",
                'name a new directory, or resume the other run with fit(…, ckpt_path="last")',
            )
        self._has_begun = True

    def save(self, plan: Plan | None) -> bool:
        """Save the current step, then remove checkpoints that need not be kept.

        First, wait for the previous save in the background with `wait_or_warn`. If checkpoints are saved in the
        background, this method only starts the new save.

        Returns:
            Whether the step was saved, or is being saved. If not, a warning was logged, and the fit may continue.

        Raises:
            SaveError: if the checkpoint cannot be written. If the settings say that training continues, the error is
                raised only for the last checkpoint of the fit.
        """
        state = self._parts.state
        is_last = plan is None or state.global_step == plan.stop_step or state.stop_reason is not None
        self.wait_or_warn()
        try:
            save = self._collect(plan)
            if self._settings.background:
                self._background = save, BackgroundTask(partial(self._write, save))
            else:
                try:
                    self._write(save)
                except BaseException:
                    self._parts.log.note_lost(save.step, save.best_before)
                    raise
                call_hooks(self._parts.hooks["on_after_save_checkpoint"], self._parts.trainer, save.folder)
        except SaveError as error:
            if is_last or not self._continues:
                raise
            self._warn(error)
            return False
        return True

    def begin_stages(self) -> None:
        """Forget that an earlier fit has finished. Called before a fit trains or validates."""
        remove_finished(self._run_dir)

    def finish(self, plan: Plan) -> None:
        """Record that a fit has carried out its whole plan."""
        write_finished(self._parts, self._run_dir, plan)

    def wait(self) -> None:
        """Wait until the save in the background has ended, if there is one.

        Raises:
            SaveError: if the checkpoint could not be written.
        """
        if self._background is None:
            return
        save, task = self._background
        error = task.wait()  # if a signal interrupts this line, `wait` can be called again
        self._background = None
        if error is not None:
            self._parts.log.note_lost(save.step, save.best_before)
            raise error
        call_hooks(self._parts.hooks["on_after_save_checkpoint"], self._parts.trainer, save.folder)

    def wait_or_warn(self) -> None:
        """Wait as `wait` does, but log its error as a warning if the fit may continue without the checkpoint.

        Raises:
            SaveError: if the checkpoint could not be written, and the fit stops on such an error.
        """
        try:
            self.wait()
        except SaveError as error:
            if not self._continues:
                raise
            self._warn(error)

    def _warn(self, error: SaveError) -> None:
        newest = f"step {max(self._own_steps)}" if self._own_steps else "none"
        _log.warning("%s; training continues. Newest checkpoint: %s.", error, newest)

    def _collect(self, plan: Plan | None) -> _Save:
        """Collect the contents of the checkpoint from the run. For a save in the background, tensors are copied."""
        log, step = self._parts.log, self._parts.state.global_step
        folder = step_folder(self._run_dir, step)
        if self._had_run_dir and not os.path.isdir(self._run_dir):
            # If the disk of the run directory is no longer mounted, a new directory would be created in the mount
            # point, and the next mount would hide the new directory.
            raise SaveError(f"{folder}: not saved: the folder {self._run_dir} no longer exists")
        self._warn_of_later_ones(step)
        contents = pack(run_state(self._parts, plan), self._copies)
        if log.best_saved is not None and log.best_saved.step not in steps_in(self._run_dir):
            log.best_saved = None  # its checkpoint is in another run directory, or was removed
        best_before = log.best_saved
        log.note_saved(step)
        best = None if log.best_saved is None else log.best_saved.step
        return _Save(
            step=step,
            folder=folder,
            contents=contents,
            best=best,
            best_before=best_before,
            keep_every=None if plan is None else plan.keep_every,
        )

    def _write(self, save: _Save) -> None:
        """Write the checkpoint, then remove checkpoints that need not be kept.

        During a save in the background, training continues, and does not use the attributes that this method changes.
        """
        write_contents(save.folder, save.contents, step=save.step, reads_back=self._settings.background)
        self._had_run_dir = True
        self._own_steps.add(save.step)
        self._whole_steps.add(save.step)
        if self._settings.keep_last is not None:
            self._prune(self._settings.keep_last, save)

    def _warn_of_later_ones(self, step: int) -> None:
        """Warn at the first save after a resume if a later checkpoint exists, which the next resume would take."""
        if self._has_looked:
            return
        later = max(steps_in(self._run_dir), default=step)
        if later > step and self._is_whole(later):
            folder = step_folder(self._run_dir, later)
            problem = "a resume would start from it, unless this fit replaces it"
            _log.warning("%s existed before this fit and has a later step: %s.", folder, problem)
        self._has_looked = True

    def _prune(self, keep_last: int, save: _Save) -> None:
        try:
            prune(
                self._run_dir,
                self._own_steps & steps_in(self._run_dir),
                keep_last=keep_last,
                keep_every=save.keep_every,
                best=save.best,
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
