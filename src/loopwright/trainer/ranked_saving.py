"""`RankedSaver`, which saves the checkpoints of a run in several processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loopwright.checkpoint import Checkpointing, HostCopies, check_state
from loopwright.engine.parts import Parts
from loopwright.engine.state import gather_state
from loopwright.errors import SaveError
from loopwright.plan import Plan
from loopwright.trainer.background import BackgroundTask
from loopwright.trainer.first_process import in_first_process
from loopwright.trainer.resume import run_state
from loopwright.trainer.save import RunSaver
from loopwright.trainer.sharded_states import ShardSave, collect_shard, gather_records


@dataclass(slots=True)
class _Writing:
    """A save whose files this process writes, or has written in a thread."""

    save: ShardSave
    answer: dict[str, Any] = field(default_factory=dict)
    task: BackgroundTask | None = None

    def write(self) -> None:
        self.answer |= self.save.write()

    def wait(self) -> None:
        error = None if self.task is None else self.task.wait()
        if error is not None:
            raise error


class RankedSaver:
    """Saves the checkpoints of a run. Every process calls the methods in the same order.

    Process 0 saves, or every process writes its own rows if the model is sharded. If a method raises an error in a
    process, it raises the same error in every process.

    If the model is sharded and checkpoints are saved in the background, each process writes its files in a thread. The
    threads do not communicate. The checkpoint gets its final name in the next `wait`, which every process calls.

    Args:
        parts: model, device, hooks and other objects of this run; see `Parts`.
        saver: object that saves in process 0; None in the other processes.
        settings: settings that say when to save, and what to do if a save fails.
    """

    def __init__(self, parts: Parts, saver: RunSaver | None, settings: Checkpointing) -> None:
        self._parts = parts
        self._ranks = parts.strategy.ranks
        self._saver = saver
        self._is_sharded = parts.strategy.is_sharded
        self._continues = settings.on_save_error == "continue"
        self._copies = HostCopies() if settings.background and self._is_sharded else None
        self._writing: _Writing | None = None  # the save of shards that is in progress

    def prepare(self, *, resumes: bool) -> None:
        """Prepare for a fit; see `RunSaver.prepare`."""
        try:
            self._end_writing()
        except SaveError as error:
            self._warn(error)
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
        if not self._is_sharded:
            return bool(self._in_first(lambda saver: saver.save(plan, state)))
        now = self._parts.state
        is_last = plan is None or now.global_step == plan.stop_step or now.stop_reason is not None
        try:
            folder, temporary = map(Path, self._in_first(lambda saver: saver.begin_shards(plan)))
            writing = self._writing = _Writing(collect_shard(self._ranks, folder, temporary, state, self._copies))
            if self._copies is None:
                writing.write()
                self._end_writing()
            else:
                writing.task = BackgroundTask(writing.write)
        except SaveError as error:
            if is_last or not self._continues:
                raise
            self._warn(error)
            return False
        return True

    def begin_stages(self) -> None:
        """Remove the record that an earlier fit has finished."""
        self._in_first(lambda saver: saver.begin_stages())

    def finish(self, plan: Plan) -> None:
        """Record that a fit has carried out its whole plan."""
        self._in_first(lambda saver: saver.finish(plan))

    def wait(self) -> None:
        """Wait for a save in the background, and give its checkpoint the final name."""
        self._in_first(lambda saver: saver.wait())
        self._end_writing()

    def wait_alone(self) -> None:
        """Wait for a save in the background, without communication, because other processes may have ended.

        A checkpoint of shards does not get its final name, because the files of other processes may be missing.
        """
        if self._saver is not None:
            self._saver.wait()
        if self._writing is not None:
            self._writing.wait()

    def wait_or_warn(self) -> None:
        """Wait for a save in the background. Log its error as a warning if the fit may continue without the save."""
        self._in_first(lambda saver: saver.wait_or_warn())
        try:
            self._end_writing()
        except SaveError as error:
            if not self._continues:
                raise
            self._warn(error)

    def _end_writing(self) -> None:
        """Complete the save of shards that is in progress, if there is one."""
        writing = self._writing
        if writing is None:
            return
        writing.wait()  # if a signal interrupts this line, the method can be called again
        self._writing = None
        try:
            records = gather_records(self._ranks, writing.save, writing.answer)
        except BaseException:
            if self._saver is not None:
                self._saver.drop_shards()
            raise
        self._in_first(lambda saver: saver.commit_shards(records))

    def _warn(self, error: SaveError) -> None:
        if self._saver is not None:
            self._saver.warn(error)

    def _in_first(self, act: Callable[[RunSaver], Any]) -> Any:
        return in_first_process(self._ranks, lambda: None if self._saver is None else act(self._saver))


Saver = RunSaver | RankedSaver
