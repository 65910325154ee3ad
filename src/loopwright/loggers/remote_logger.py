"""`RemoteLogger`, a base class of loggers that send the values of a run over a network or into a database."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

from loopwright.errors import CheckpointError, SettingError, refuse
from loopwright.hooks import Logger
from loopwright.loggers.append_only import is_of_run
from loopwright.loggers.backlog import Backlog, Point
from loopwright.loggers.sender import Destination, Ending, Sender
from loopwright.loggers.sent_record import SentRecord, read_sent

if TYPE_CHECKING:
    from contextlib import ExitStack

    from loopwright.loop import LoopCallback
    from loopwright.trainer import Trainer

TIMING_PREFIX = "timing/"  # of the names of durations, rates and sizes
_ON_ERROR = ("continue", "stop")
_log = logging.getLogger("loopwright")


class RemoteLogger(Logger, ABC):
    """Base class of loggers that send the values of a run over a network or into a database.

    The values are sent in a thread. Durations, rates and sizes are sent under ``timing/NAME``. The run directory gets a
    file ``<file_name>``, which contains the last step that was sent under each name. A checkpoint contains the values
    that were not sent yet. So a resumed run sends each value once, even if the process was killed.

    A subclass sets ``file_name`` and ``title``, and implements `destination`.

    Args:
        on_error: reaction to an error of the receiver: ``continue`` logs a warning once, and sends the values later;
            ``stop`` ends the run.

    Raises:
        SettingError: if the trainer is built without a ``run_dir``.
    """

    file_name: ClassVar[str]
    title: ClassVar[str]
    waits_for_step: ClassVar[bool] = False

    def __init__(self, on_error: str = "continue") -> None:
        if on_error not in _ON_ERROR:
            raise refuse("on_error", on_error, "'continue' or 'stop'")
        self._on_error = on_error
        self._run_dir: Path | None = None
        self._trainer: Trainer | None = None
        self._sender: Sender | None = None
        self._backlog = Backlog(waits_for_step=self.waits_for_step)
        self._is_own_run = False
        self._ended: tuple[str, int] = "completed", 0  # state and exit code

    @abstractmethod
    def check_packages(self) -> None:
        """Import the packages of the receiver.

        Raises:
            ImportError: if a package is missing. The message names the extra to install.
        """

    @abstractmethod
    def destination(self, run_dir: Path, before: SentRecord | None, note: Callable[[SentRecord], None]) -> Destination:
        """Return the receiver of the values.

        Args:
            run_dir: run directory.
            before: what was sent before this run was resumed; empty if this is not recorded; None for a new run.
            note: function that writes the record of the run. Call it as soon as the ID of the run is known.
        """

    def sent_name(self, name: str) -> str:
        """Return the name under which the receiver stores a value."""
        return name

    def state_dict(self) -> dict[str, Any]:
        """Return the values that are not sent yet."""
        import torch  # not at the top of the module, because commands that only read runs import it without torch

        points = self._backlog.points if self._sender is None else self._sender.unsent()
        names = list(dict.fromkeys(point.name for point in points))
        places = {name: index for index, name in enumerate(names)}
        return {
            "names": names,
            "name_indices": torch.tensor([places[point.name] for point in points], dtype=torch.int64),
            "steps": torch.tensor([point.step for point in points], dtype=torch.int64),
            "values": torch.tensor([point.value for point in points], dtype=torch.float64),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the values that were not sent, if the checkpoint belongs to this run directory.

        Raises:
            CheckpointError: if the state is not a state of this logger.
        """
        if not self._is_own_run or self._sender is not None:
            return
        names, columns = state_dict["names"], [state_dict[key] for key in ("name_indices", "steps", "values")]
        rows = list(zip(*(column.tolist() for column in columns), strict=True))
        if not all(0 <= index < len(names) for index, _, _ in rows):
            raise CheckpointError(f"{self.title}: the checkpoint contains values without names.")
        now = time.time()
        self._backlog.put_first(Point(step, str(names[index]), value, now) for index, step, value in rows)

    def on_before_load_checkpoint(self, trainer: Trainer, ckpt_path: Path) -> None:
        """Record whether the checkpoint belongs to this run directory."""
        self._is_own_run = is_of_run(ckpt_path, trainer.run_dir)

    def setup(self, trainer: Trainer) -> None:
        """Store the run directory, and check that the packages of the receiver are installed."""
        if trainer.run_dir is None:
            raise refuse("run_dir", None, f"a directory for {self.file_name}", "give Trainer(run_dir=…)")
        self.finalize()
        self.check_packages()
        self._run_dir, self._trainer = trainer.run_dir, trainer
        self._is_own_run = False

    def on_enter_fit(
        self, trainer: Trainer, stack: ExitStack, train_dataloader: Any, val_dataloader: Any, loop: LoopCallback
    ) -> None:
        """Record how the fit ends."""
        stack.push(self._note_end)

    def on_enter_validate(self, trainer: Trainer, stack: ExitStack, val_dataloader: Any, loop: LoopCallback) -> None:
        """Record how the validation ends. The end of a fit replaces this record."""
        stack.push(self._note_end)

    def on_fit_start(self, trainer: Trainer, train_dataloader: Any, val_dataloader: Any, loop: LoopCallback) -> None:
        """Connect to the receiver, in the thread."""
        self._started()

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Send a value for each metric.

        Raises:
            SaveError: if the last sending failed, and ``on_error`` is "stop".
        """
        now = time.time()
        points = [Point(step, self.sent_name(name), float(value), now) for name, value in metrics.items()]
        self._started().add(points)

    def log_timing(self, timing: Mapping[str, float], step: int) -> None:
        """Send a value for each duration, rate and size, under ``timing/NAME``."""
        self.log_metrics({f"{TIMING_PREFIX}{name}": value for name, value in timing.items()}, step)

    def finalize(self) -> None:
        """Send the last values and the end of the run. This takes at most 30 s."""
        sender, trainer = self._sender, self._trainer
        self._sender = self._trainer = None
        if sender is not None and trainer is not None:
            best = None if trainer.best is None else (trainer.best.name, trainer.best.value, trainer.best.step)
            state, exit_code = self._ended
            sender.close(Ending(state=state, exit_code=exit_code, metrics=trainer.metrics, best=best))
        self._backlog = Backlog(waits_for_step=self.waits_for_step)

    def _started(self) -> Sender:
        """Return the thread that sends the values. Start it if it does not run."""
        if self._sender is None:
            assert self._run_dir is not None, "a trainer sets its loggers up before it logs"
            file = self._run_dir / self.file_name
            record = SentRecord()

            def note(new: SentRecord) -> None:
                record.run_id, record.last_steps = new.run_id, new.last_steps
                record.write(file)

            def note_sent(last_steps: Mapping[str, int]) -> None:
                record.last_steps = last_steps
                record.write(file)

            before = (read_sent(file) or SentRecord()) if self._is_own_run else None
            destination = self.destination(self._run_dir, before, note)
            self._sender = Sender(
                destination,
                self._backlog,
                name=self.title,
                note_sent=note_sent,
                stops_on_error=self._on_error == "stop",
            )
            self._sender.start()
        return self._sender

    def _note_end(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> bool:
        assert self._trainer is not None, "a trainer sets its loggers up before a fit"
        self._ended = ending_of(error, self._trainer.stop_reason, is_interrupted=self._trainer.is_interrupted)
        return False


def ending_of(error: BaseException | None, stop_reason: str | None, *, is_interrupted: bool) -> tuple[str, int]:
    """Return the state and the exit code of a fit.

    Args:
        error: exception that ended the fit; None if no exception did.
        stop_reason: reason for the stop of the fit; None if it was not stopped.
        is_interrupted: whether a later process will resume the fit.

    >>> ending_of(None, "SIGTERM", is_interrupted=True), ending_of(ValueError(), None, is_interrupted=False)
    (('interrupted', 143), ('failed', 1))
    """
    if isinstance(error, Exception):
        code = 2 if isinstance(error, SettingError) else 3 if isinstance(error, CheckpointError) else 1
        return "failed", code
    if error is not None or is_interrupted:
        is_sigint = isinstance(error, KeyboardInterrupt) or stop_reason == "SIGINT"
        return "interrupted", 130 if is_sigint else 143
    return ("completed" if stop_reason is None else "stopped"), 0


def missing_package(title: str, error: ImportError, extra: str, needed: Sequence[str]) -> ImportError:
    """Return an error that names the extra to install.

    Args:
        title: name of the logger's class.
        error: error of the import.
        extra: name of the extra.
        needed: packages of the extra.
    """
    remedy = f"pip install 'loopwright[{extra}]'"
    return ImportError(f"loggers: {title} needs {error.name or ' and '.join(needed)}; {remedy}.")
