"""`TensorBoardLogger`: writes the metrics of a run as TensorBoard event files."""

from __future__ import annotations

import os
import stat
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopwright.errors import SaveError, refuse
from loopwright.hooks import Logger
from loopwright.loggers.append_only import is_of_run
from loopwright.loggers.remote_logger import TIMING_PREFIX
from loopwright.loggers.run_facts import RunFacts, as_text, read_facts

if TYPE_CHECKING:
    from contextlib import ExitStack

    from torch.utils.tensorboard import SummaryWriter

    from loopwright.loop import LoopCallback
    from loopwright.trainer import Trainer

FOLDER = "tensorboard"


class TensorBoardLogger(Logger):
    """Writes metrics, timings and texts as event files to ``tensorboard/`` in the run directory.

    ``tensorboard --logdir outputs`` shows all runs. Durations, rates and sizes are shown under ``timing/NAME``. The
    hyper-parameters are the settings that differ from the configuration of the experiment, and for a job of a sweep
    also its factors and its seed. Events are flushed to disk after each validation and when the trainer is closed. When
    a run is resumed from one of its checkpoints, events after that checkpoint are removed.

    Raises:
        ImportError: if tensorboard is missing when the trainer is built: ``pip install 'loopwright[tensorboard]'``.
        SettingError: if the trainer is built without a ``run_dir``.
    """

    def __init__(self) -> None:
        self._run_dir: Path | None = None
        self._writer: SummaryWriter | None = None
        self._is_own_run = False

    def state_dict(self) -> dict[str, Any]:
        """Return the names of the event files and their sizes in bytes."""
        self._flush()
        return {"sizes": {file.name: file.stat().st_size for file in self._event_files()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Truncate the event files to their sizes in the checkpoint, and delete newer event files.

        If the checkpoint belongs to another run directory, do nothing.
        """
        if not self._is_own_run:
            return
        self.finalize()
        for file in self._event_files():
            size = state_dict["sizes"].get(file.name)
            if size is None:
                file.unlink()
            elif file.stat().st_size > size:
                os.truncate(file, size)

    def on_before_load_checkpoint(self, trainer: Trainer, ckpt_path: Path) -> None:
        """Record whether the checkpoint belongs to this run directory."""
        self._is_own_run = is_of_run(ckpt_path, trainer.run_dir)

    def setup(self, trainer: Trainer) -> None:
        """Store the trainer's run directory. The event file is created when the first value is logged."""
        if trainer.run_dir is None:
            raise refuse("run_dir", None, f"a directory for {FOLDER}", "give Trainer(run_dir=…)")
        _summary_writer()  # if tensorboard is missing, the ImportError is raised here, before training
        self.finalize()
        self._run_dir = Path(trainer.run_dir)

    def on_fit_start(self, trainer: Trainer, train_dataloader: Any, val_dataloader: Any, loop: LoopCallback) -> None:
        """Write the hyper-parameters of a new run that has a recorded configuration."""
        assert self._run_dir is not None, "a trainer sets its loggers up before a fit"
        facts = read_facts(self._run_dir)
        if facts.config and not self._is_own_run:
            file: Any = self._open().file_writer
            for summary in _session(facts):
                file.add_summary(summary)

    def on_enter_validate(self, trainer: Trainer, stack: ExitStack, val_dataloader: Any, loop: LoopCallback) -> None:
        """Flush the events to disk when the validation ends."""
        stack.callback(self._flush)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Write a scalar event for each metric."""
        writer = self._open()
        for name, value in metrics.items():
            writer.add_scalar(name, value, step)

    def log_timing(self, timing: Mapping[str, float], step: int) -> None:
        """Write a scalar event for each duration, rate and size, under ``timing/NAME``."""
        self.log_metrics({f"{TIMING_PREFIX}{name}": value for name, value in timing.items()}, step)

    def log_text(self, texts: Mapping[str, str], step: int) -> None:
        """Write a text event for each text, which TensorBoard shows verbatim."""
        for name, text in texts.items():
            self._open().add_text(name, textwrap.indent(text, "    "), step)  # indented Markdown is shown verbatim

    def finalize(self) -> None:
        """Flush the events to disk and close the event file."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def _flush(self) -> None:
        if self._writer is not None:
            self._writer.flush()

    def _event_files(self) -> list[Path]:
        assert self._run_dir is not None, "a trainer sets its loggers up before it logs"
        self._check_folder()
        found = sorted((self._run_dir / FOLDER).glob("events.out.tfevents.*"))
        return [file for file in found if stat.S_ISREG(file.lstat().st_mode)]

    def _check_folder(self) -> None:
        """Refuse a link at the path of the folder, because events would be written to another folder."""
        assert self._run_dir is not None, "a trainer sets its loggers up before it logs"
        if (self._run_dir / FOLDER).is_symlink():
            raise SaveError(f"{self._run_dir / FOLDER}: a link, and not written to; remove it or move it away.")

    def _open(self) -> SummaryWriter:
        assert self._run_dir is not None, "a trainer sets its loggers up before it logs"
        if self._writer is None:
            self._check_folder()
            self._writer = _summary_writer()(self._run_dir / FOLDER)
        return self._writer


def _summary_writer() -> type[SummaryWriter]:
    """Import and return torch's `SummaryWriter`. The import takes a second, and tensorboard is optional."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        remedy = "pip install 'loopwright[tensorboard]'"
        raise ImportError(f"loggers: TensorBoardLogger needs {error.name or 'tensorboard'}; {remedy}.") from error
    return SummaryWriter


def _session(facts: RunFacts) -> tuple[Any, Any]:
    """Return the summaries of the start and of the end of a run, with its hyper-parameters.

    The third summary of torch describes the experiment, and is not written. TensorBoard would use the one of the first
    run for all runs, and hide the hyper-parameters that the first run lacks.
    """
    from torch.utils.tensorboard.summary import hparams

    seed = {"seed": facts.config.get("seed")} if facts.sweep is not None else {}
    values = {**facts.changes, **facts.factors, **seed}
    known = {key: each if isinstance(each, bool | int | float | str) else as_text(each) for key, each in values.items()}
    _, start, end = hparams(known, {})  # type: ignore[no-untyped-call]
    return start, end
