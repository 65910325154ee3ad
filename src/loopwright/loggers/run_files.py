"""`RunFiles`: files in the run directory that grow by whole lines, and the base of the loggers that write them."""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TextIO

from loopwright.errors import refuse
from loopwright.hooks import Logger

if TYPE_CHECKING:
    from contextlib import ExitStack

    from loopwright.loop import LoopCallback
    from loopwright.trainer import Trainer


class RunFiles:
    """Appends lines to files of one run directory; the system has them when `append` returns.

    A file is made with its first line. Outside a fit it is closed again after each call.

    Args:
        run_dir: of the trainer.
        needed_for: the file that a trainer without a run directory cannot have.

    Raises:
        SettingError: without a run directory.
    """

    def __init__(self, run_dir: str | Path | None, needed_for: str) -> None:
        if run_dir is None:
            raise refuse("run_dir", None, f"a directory for {needed_for}", "give Trainer(run_dir=…)")
        self._run_dir = Path(run_dir)
        self._files: dict[str, TextIO] = {}
        self._is_kept_open = False

    def keep_open(self) -> None:
        """Keep files open between calls, until `close`."""
        self._is_kept_open = True

    def append(self, name: str, lines: Iterable[str], header: str = "") -> None:
        """Append lines, each with its line end, to the file ``name``; a file that is new begins with ``header``."""
        if name not in self._files:
            self._run_dir.mkdir(parents=True, exist_ok=True)
            file: TextIO = (self._run_dir / name).open("a", encoding="utf-8", newline="")
            self._files[name] = file
            if not file.tell():
                file.write(header)
        self._files[name].writelines(lines)
        self._files[name].flush()
        if not self._is_kept_open:
            self.close()

    def close(self) -> None:
        """Close the files; a later call opens them again."""
        self._is_kept_open = False
        while self._files:
            _, file = self._files.popitem()
            file.close()


class FileLogger(Logger, ABC):
    """A logger that appends to files of the run directory, open for as long as a fit lasts.

    Subclasses name the file that stands for them, and append in `log_metrics` and its kin.

    Raises:
        SettingError: when the trainer is built without a ``run_dir``.
    """

    file_name: ClassVar[str]

    def __init__(self) -> None:
        self._files: RunFiles | None = None

    def setup(self, trainer: Trainer) -> None:
        """Take the trainer's run directory; a file is made with its first line."""
        self.finalize()
        self._files = RunFiles(trainer.run_dir, self.file_name)

    def on_enter_fit(
        self, trainer: Trainer, stack: ExitStack, train_dataloader: Any, val_dataloader: Any, loop: LoopCallback
    ) -> None:
        """Keep the files open for as long as the fit lasts."""
        self.files.keep_open()
        stack.callback(self.finalize)

    def finalize(self) -> None:
        """Close the files."""
        if self._files is not None:
            self._files.close()

    @property
    def files(self) -> RunFiles:
        """The files of this run."""
        assert self._files is not None, "a trainer sets its loggers up before it logs"
        return self._files


def number(value: float) -> float | str:
    """A finite value as it is, else a word that ``float`` reads: ``"NaN"``, ``"Infinity"`` or ``"-Infinity"``."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
