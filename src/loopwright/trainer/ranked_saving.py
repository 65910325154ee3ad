"""`RankedSaver`, which saves the checkpoints of a run in several processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from loopwright.checkpoint import check_state
from loopwright.engine.parts import Parts
from loopwright.engine.state import gather_state
from loopwright.plan import Plan
from loopwright.trainer.first_process import in_first_process
from loopwright.trainer.resume import run_state
from loopwright.trainer.save import RunSaver


class RankedSaver:
    """Saves the checkpoints of a run in process 0. Every process calls the methods in the same order.

    If a method fails in process 0, every process raises the same error.

    Args:
        parts: model, device, hooks and other objects of this run; see `Parts`.
        saver: object that saves in process 0; None in the other processes.
    """

    def __init__(self, parts: Parts, saver: RunSaver | None) -> None:
        self._parts = parts
        self._ranks = parts.strategy.ranks
        self._saver = saver

    def prepare(self, *, resumes: bool) -> None:
        """Prepare for a fit; see `RunSaver.prepare`."""
        self._in_first(lambda saver: saver.prepare(resumes=resumes))

    def check_state(self, plan: Plan) -> None:
        """Refuse a state that a checkpoint cannot contain; see `RunSaver.check_state`."""
        check_state(gather_state(self._parts, plan.settings()), "")

    def resume_from(self, folder: Path, step: int) -> None:
        """Note the checkpoint that the run resumes from; see `RunSaver.resume_from`."""
        self._in_first(lambda saver: saver.resume_from(folder, step))

    def note_saved_by_hand(self, folder: Path, step: int) -> None:
        """Note that `Trainer.save_checkpoint` saves a checkpoint."""
        self._in_first(lambda saver: saver.note_saved_by_hand(folder, step))

    def save(self, plan: Plan | None) -> bool:
        """Save the current step; see `RunSaver.save`."""
        self.wait_or_warn()
        state = run_state(self._parts, plan)
        return bool(self._in_first(lambda saver: saver.save(plan, state)))

    def begin_stages(self) -> None:
        """Remove the record that an earlier fit has finished."""
        self._in_first(lambda saver: saver.begin_stages())

    def finish(self, plan: Plan) -> None:
        """Record that a fit has carried out its whole plan."""
        self._in_first(lambda saver: saver.finish(plan))

    def wait(self) -> None:
        """Wait for a save in the background."""
        self._in_first(lambda saver: saver.wait())

    def wait_alone(self) -> None:
        """Wait for a save in the background, without communication, because other processes may have ended."""
        if self._saver is not None:
            self._saver.wait()

    def wait_or_warn(self) -> None:
        """Wait for a save in the background. Log its error as a warning if the fit may continue without the save."""
        self._in_first(lambda saver: saver.wait_or_warn())

    def _in_first(self, act: Callable[[RunSaver], Any]) -> Any:
        return in_first_process(self._ranks, lambda: None if self._saver is None else act(self._saver))


Saver = RunSaver | RankedSaver
