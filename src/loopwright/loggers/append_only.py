"""`AppendedFiles`: files in the run directory that grow by whole lines, and the base of the loggers that write them."""

from __future__ import annotations

import logging
import math
import os
from abc import ABC
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from loopwright.errors import SaveError, refuse, room
from loopwright.hooks import Logger

if TYPE_CHECKING:
    from contextlib import ExitStack

    from loopwright.loop import LoopCallback
    from loopwright.trainer import Trainer


_log = logging.getLogger("loopwright")


class AppendedFiles:
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
        self._descriptors: dict[str, int] = {}
        self._waiting: dict[str, bytes] = {}  # what could not be written yet
        self._is_kept_open = False
        self._has_begun = False

    def keep_open(self) -> None:
        """Keep files open between calls, until `close`."""
        self._is_kept_open = True

    def append(self, name: str, lines: Iterable[str], header: str = "") -> None:
        """Append lines, each with its line end, to the file ``name``; a file that is new begins with ``header``.

        What cannot be written is said, kept, and written as soon as it can be: whether a run goes on where nothing can
        be saved is for its checkpoints to decide, see `size`; how it ends, for `write_waiting`.
        """
        was_waiting = name in self._waiting
        data = self._waiting.pop(name, b"") + "".join(lines).encode()
        try:
            file = self._open(name)
            if header and not os.fstat(file).st_size:
                data = header.encode() + data
            while data:
                data = data[os.write(file, data) :]
        except OSError as error:
            self._waiting[name] = data
            if not was_waiting:
                path = self._run_dir / name
                _log.warning("%s: cannot be written now (%s); the lines are kept until they can.", path, error.strerror)
        if not self._is_kept_open:
            self._close_files()

    def size(self, name: str) -> int:
        """Bytes of the file ``name``, which survive a loss of power when this returns; 0 where there is none.

        Raises:
            SaveError: if lines wait that still cannot be written.
        """
        path = self._run_dir / name
        self.write_waiting(name)
        try:
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return 0
        try:
            os.fsync(file)
            return os.fstat(file).st_size
        finally:
            os.close(file)

    def write_waiting(self, *names: str) -> None:
        """Write the lines of these files that wait, as they could not be written before.

        Raises:
            SaveError: if they still cannot.
        """
        for name in names:
            if name in self._waiting:
                self.append(name, ())
            if name in self._waiting:
                needed = room(len(self._waiting[name]), self._run_dir)
                raise SaveError(f"{self._run_dir / name}: cannot be written; {needed}")

    def cut_back(self, name: str, size: int) -> None:
        """Take off everything after the first ``size`` bytes of the file ``name``."""
        path = self._run_dir / name
        present = path.stat().st_size if path.exists() else 0
        if present < size:
            _log.warning("%s: %d bytes are missing of the history up to the checkpoint.", path, size - present)
        elif present > size:
            os.ftruncate(self._open(name), size)
            if not self._is_kept_open:
                self._close_files()

    def rest(self) -> None:
        """Close the files; a later call opens them again. Lines that wait go on waiting."""
        self._is_kept_open = False
        self._close_files()

    def close(self) -> None:
        """Close the files for good.

        Raises:
            SaveError: if lines are lost, as they still cannot be written.
        """
        waiting = [*self._waiting]
        try:
            self.write_waiting(*waiting)
        finally:
            self._waiting = {}
            self.rest()

    def _open(self, name: str) -> int:
        """The file, opened to append; a link is not followed, as it may lead anywhere."""
        if name not in self._descriptors:
            if not self._has_begun:  # made anew it could lie under the mount point of a disk that has gone
                self._run_dir.mkdir(parents=True, exist_ok=True)
                self._has_begun = True
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._descriptors[name] = os.open(self._run_dir / name, flags, 0o666)
        return self._descriptors[name]

    def _close_files(self) -> None:
        for name in list(self._descriptors):
            os.close(self._descriptors.pop(name))


class FileLogger(Logger, ABC):
    """A logger that appends to files of the run directory, open for as long as a fit lasts.

    Subclasses name their files, and append in `log_metrics` and its kin. A checkpoint holds how long each file was;
    when its run goes on in the same directory, what was written after it is taken off again.

    Raises:
        SettingError: when the trainer is built without a ``run_dir``.
    """

    file_names: ClassVar[tuple[str, ...]]

    def __init__(self) -> None:
        self._files: AppendedFiles | None = None
        self._is_own_run = False

    def state_dict(self) -> dict[str, Any]:
        """The sizes of the files, in bytes."""
        return {"sizes": {name: self.files.size(name) for name in self.file_names}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Cut the files back, where the checkpoint is one of this run directory."""
        if self._is_own_run:
            for name in self.file_names:
                self.files.cut_back(name, int(state_dict["sizes"].get(name, 0)))

    def on_before_load_checkpoint(self, trainer: Trainer, ckpt_path: Path) -> None:
        """Note whether this run wrote it."""
        self._is_own_run = is_of_run(ckpt_path, trainer.run_dir)

    def setup(self, trainer: Trainer) -> None:
        """Take the trainer's run directory; a file is made with its first line."""
        self.finalize()
        self._files = AppendedFiles(trainer.run_dir, self.file_names[0])

    def on_enter_fit(
        self, trainer: Trainer, stack: ExitStack, train_dataloader: Any, val_dataloader: Any, loop: LoopCallback
    ) -> None:
        """Keep the files open for as long as the fit lasts."""
        self.files.keep_open()
        stack.callback(self.files.rest)

    def on_fit_end(self, trainer: Trainer, loop: LoopCallback) -> None:
        """See that everything is written: a fit whose results are not there has not succeeded."""
        self.files.write_waiting(*self.file_names)

    def finalize(self) -> None:
        """Close the files, after a last try to write what could not be written before."""
        if self._files is not None:
            self._files.close()

    @property
    def files(self) -> AppendedFiles:
        """The files of this run."""
        assert self._files is not None, "a trainer sets its loggers up before it logs"
        return self._files


def is_of_run(ckpt_path: Path, run_dir: Path | None) -> bool:
    """Whether a checkpoint lies where a run keeps its own."""
    return run_dir is not None and ckpt_path.resolve().parent.parent == run_dir.resolve()


def number(value: float) -> float | str:
    """A finite value as it is, else a word that ``float`` reads: ``"NaN"``, ``"Infinity"`` or ``"-Infinity"``."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
