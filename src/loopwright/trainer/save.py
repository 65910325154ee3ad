"""`RunSaver`, which saves the checkpoints of a run during its fits, and removes old checkpoints."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from loopwright.checkpoint import (
    Checkpointing,
    Contents,
    FileRecord,
    HostCopies,
    begin_shards,
    check_state,
    clean_leftovers,
    commit_shards,
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
        contents: contents of the files of the checkpoint; empty if every process writes its own files.
        best: step of the checkpoint with the best monitored metric, which is kept; None if there is no such checkpoint.
        best_before: best value of the monitored metric among the steps that were saved before; None: no such value.
        keep_every: number of steps. A checkpoint is kept if its step is a multiple of this number. None: off.
    """

    step: int
    folder: Path
    contents: Contents
    best: int | None
    best_before: Best | None
    keep_every: int | None


class RunSaver:
    """Saves the checkpoints of a run into its run directory.

    Earlier checkpoints of the run are found by listing the run directory, because a separate index could disagree with
    the directory. After a resume, all checkpoints up to the resumed step belong to the run.

    Args:
        parts: model, device, hooks and other objects of this run; see `Parts`.
        settings: settings that determine when to save, and which checkpoints to keep.
        run_dir: run directory.
    """

    def __init__(self, parts: Parts, settings: Checkpointing, run_dir: Path) -> None:
        self._parts = parts
        self._settings = settings
        self._run_dir = run_dir
        self._root = step_folder(run_dir, 0).parent
        self._own_steps: set[int] = set()  # steps of the checkpoints of this run
        self._whole_steps: set[int] = set()  # steps of the checkpoints that this process has written or verified
        self._steps_by_hand: set[int] = set()  # steps saved by `Trainer.save_checkpoint` in the run directory
        self._has_begun = False  # whether a fit has begun in the run directory
        self._has_looked = False
        self._had_run_dir = False
        self._continues = settings.on_save_error == "continue"
        self._copies = HostCopies() if settings.background else None
        self._background: tuple[_Save, BackgroundTask] | None = None  # the save that is in progress
        self._shards: tuple[_Save, Path] | None = None  # a save whose files every process writes, and its folder

    def prepare(self, *, resumes: bool) -> None:
        """Check that the fit can save checkpoints, and remove unfinished checkpoints of killed processes.

        Args:
            resumes: whether the fit resumes a run. The caller must then also call `resume_from`.

        Raises:
            SettingError: if the state of the model has a value that a checkpoint cannot contain, or if the run
                directory contains checkpoints of another run.
            SaveError: if the checkpoints cannot be saved in the run directory.
        """
        try:
            self.wait()  # a save may still be running, if a second signal ended the last fit
        except SaveError as error:
            self.warn(error)
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
        """Refuse a state that a checkpoint cannot contain. Called before the first step, so no step is trained in vain.

        This method does not check entries that a hook adds during a save.

        Raises:
            SettingError: if a checkpoint cannot contain a value in the state of a scheduler, the optimizer, the
                dataloader or a callback. The message contains the path of the value.
        """
        check_state(gather_state(self._parts, plan.settings()), "")

    def resume_from(self, folder: Path, step: int) -> None:
        """Record the checkpoint from which the run resumes.

        If ``folder`` is in the run directory, all checkpoints in the run directory up to ``step`` belong to the run.
        The run replaces a later checkpoint when it saves the step of this checkpoint again.

        Raises:
            SettingError: if ``folder`` is in another directory, and the run directory contains checkpoints of another
                run.
        """
        is_own = self._root.is_dir() and os.path.samefile(folder.parent, self._root)
        if is_own:
            self._has_begun = True
        self._begin()
        self._own_steps = {each for each in steps_in(self._run_dir) if each <= step} if is_own else set()
        self._whole_steps = {step} & self._own_steps

    def note_saved_by_hand(self, folder: Path, step: int) -> None:
        """Record that `Trainer.save_checkpoint` saves ``folder``. Folders outside the run directory are ignored."""
        if folder.absolute() == step_folder(self._run_dir, step).absolute():
            self._steps_by_hand.add(step)

    def _begin(self) -> None:
        """In the first fit, refuse a run directory with checkpoints of another run.

        The saves would replace these checkpoints, and "last" could be a checkpoint of the wrong run.
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

    def save(self, plan: Plan | None, run: Mapping[str, Any] | None = None) -> bool:
        """Save the current step, then remove checkpoints that need not be kept.

        This method first waits for the previous save in the background; see `wait_or_warn`. If checkpoints are saved in
        the background, this method only starts the new save.

        Args:
            plan: plan of the fit; None: there was no fit.
            run: contents of the checkpoint; None: they are collected from the run.

        Returns:
            True if the step was saved, or is being saved. False if the save failed and the fit may continue. In this
            case, a warning was logged.

        Raises:
            SaveError: if the checkpoint cannot be written. If ``on_save_error`` is "continue", the error is raised only
                for the last checkpoint of the fit.
        """
        state = self._parts.state
        is_last = plan is None or state.global_step == plan.stop_step or state.stop_reason is not None
        self.wait_or_warn()
        try:
            state_now = run_state(self._parts, plan) if run is None else run
            save = self._collect(plan, lambda: pack(state_now, self._copies))
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
            self.warn(error)
            return False
        return True

    def begin_shards(self, plan: Plan | None) -> list[str]:
        """Begin a save of the current step whose files every process writes. Return its final and temporary folder.

        Raises:
            SaveError: if the temporary folder cannot be created.
        """
        save = self._collect(plan, dict)
        temporary = begin_shards(save.folder)
        self._shards = save, temporary
        return [str(save.folder), str(temporary)]

    def commit_shards(self, records: Mapping[str, FileRecord]) -> None:
        """End the save that `begin_shards` began, after every process has written its files.

        Raises:
            SaveError: if the checkpoint cannot be completed.
        """
        assert self._shards is not None, "begin_shards comes first"
        save, temporary = self._shards
        world_size = self._parts.strategy.ranks.world_size
        try:
            commit_shards(save.folder, temporary, records, step=save.step, world_size=world_size)
        except SaveError:
            self.drop_shards()
            raise
        self._shards = None
        self._note_written(save)
        call_hooks(self._parts.hooks["on_after_save_checkpoint"], self._parts.trainer, save.folder)

    def drop_shards(self) -> None:
        """Forget the save that `begin_shards` began, because a process could not write its files."""
        if self._shards is not None:
            self._parts.log.note_lost(self._shards[0].step, self._shards[0].best_before)
        self._shards = None

    def begin_stages(self) -> None:
        """Remove the record that an earlier fit has finished. Called before a fit trains or validates."""
        remove_finished(self._run_dir)

    def finish(self, plan: Plan) -> None:
        """Record that a fit has carried out its whole plan."""
        write_finished(self._parts, self._run_dir, plan)

    def wait(self) -> None:
        """Wait until the save in the background has ended. Without such a save, return immediately.

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

    def wait_alone(self) -> None:
        """Wait as `wait` does. If several processes train, they need not all call this method."""
        self.wait()

    def wait_or_warn(self) -> None:
        """Call `wait`. If ``on_save_error`` is "continue", log a `SaveError` as a warning.

        Raises:
            SaveError: if the checkpoint could not be written, and ``on_save_error`` is not "continue".
        """
        try:
            self.wait()
        except SaveError as error:
            if not self._continues:
                raise
            self.warn(error)

    def warn(self, error: SaveError) -> None:
        """Log that a checkpoint was not saved and that training continues."""
        newest = f"step {max(self._own_steps)}" if self._own_steps else "none"
        _log.warning("%s; training continues. Newest checkpoint: %s.", error, newest)

    def _collect(self, plan: Plan | None, contents_now: Callable[[], Contents]) -> _Save:
        """Collect the contents of the checkpoint from the run. For a save in the background, tensors are copied."""
        log, step = self._parts.log, self._parts.state.global_step
        folder = step_folder(self._run_dir, step)
        if self._had_run_dir and not os.path.isdir(self._run_dir):
            # The disk of the run directory may be unmounted. A new run directory would then be on another disk, and
            # the next mount would hide it.
            raise SaveError(f"{folder}: not saved: the folder {self._run_dir} no longer exists")
        self._warn_of_later_ones(step)
        contents = contents_now()
        if log.best_saved is not None and log.best_saved.step not in steps_in(self._run_dir):
            log.best_saved = None  # the checkpoint of this step is in another run directory, or was removed
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
        """Write the checkpoint, and remove old checkpoints.

        This method may run in a background thread. Meanwhile, the main thread does not use the attributes that this
        method changes.
        """
        world_size = self._parts.strategy.ranks.world_size
        write_contents(
            save.folder,
            save.contents,
            step=save.step,
            world_size=world_size,
            reads_back=self._settings.background,
        )
        self._note_written(save)

    def _note_written(self, save: _Save) -> None:
        self._had_run_dir = True
        self._own_steps.add(save.step)
        self._whole_steps.add(save.step)
        if self._settings.keep_last is not None:
            self._prune(self._settings.keep_last, save)

    def _warn_of_later_ones(self, step: int) -> None:
        """At the first save, warn about a checkpoint of a later step, because the next resume would start from it."""
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
