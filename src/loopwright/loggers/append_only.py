"""`AppendedFiles`, which appends lines to files, and `FileLogger`, a base class of loggers that write such files."""

from __future__ import annotations

import errno
import logging
import math
import os
import stat
from abc import ABC
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from loopwright.errors import SaveError, refuse, room
from loopwright.hooks import Logger
from loopwright.regular_files import open_regular, open_to_append

if TYPE_CHECKING:
    from contextlib import ExitStack

    from loopwright.loop import LoopCallback
    from loopwright.trainer import Trainer


_log = logging.getLogger("loopwright")


class AppendedFiles:
    """Appends lines to files in one run directory.

    `append` passes the lines to the operating system before the call returns. A file is created when its first line is
    appended. Unless `keep_open` was called, the file is closed after each call.

    Args:
        run_dir: run directory of the trainer.
        needed_for: file name for the error message if ``run_dir`` is None.

    Raises:
        SettingError: if ``run_dir`` is None.
    """

    def __init__(self, run_dir: str | Path | None, needed_for: str) -> None:
        if run_dir is None:
            raise refuse("run_dir", None, f"a directory for {needed_for}", "give Trainer(run_dir=…)")
        self._run_dir = Path(run_dir)
        self._descriptors: dict[str, int] = {}
        self._num_written: dict[str, int] = {}  # number of bytes that this object has appended, by file name
        self._waiting: dict[str, bytes] = {}  # waiting lines, which could not be written yet, by file name
        self._is_kept_open = False
        self._has_begun = False

    def keep_open(self) -> None:
        """Keep files open between calls, until `rest` or `close`."""
        self._is_kept_open = True

    def append(self, name: str, lines: Iterable[str], header: str = "") -> None:
        """Append lines to the file ``name``.

        If the file cannot be written, for example because the disk is full, this method raises no error. A warning is
        logged, and the lines wait in memory. Each later call tries to write the waiting lines again. `size` and
        `write_waiting` raise an error if the waiting lines still cannot be written.

        Args:
            name: file name.
            lines: lines, each including its newline.
            header: first line of the file, including its newline. The header is written if the file is empty.

        Raises:
            SaveError: if the path is a link or another object that is not a regular file.
        """
        was_waiting = name in self._waiting
        data = self._waiting.pop(name, b"") + "".join(lines).encode()
        try:
            file = self._open(name)
            if header and not os.fstat(file).st_size:
                data = header.encode() + data
            while data:
                num_bytes = os.write(file, data)
                self._num_written[name] = self._num_written.get(name, 0) + num_bytes
                data = data[num_bytes:]
        except OSError as error:
            self._waiting[name] = data
            if not was_waiting:
                path = self._run_dir / name
                problem = "%s: cannot be written now (%s); new lines are kept in memory until the file can be written."
                _log.warning(problem, path, error.strerror)
        if not self._is_kept_open:
            self._close_files()

    def size(self, name: str) -> int:
        """Sync the file ``name`` to disk and return its size in bytes, or 0 if the file does not exist.

        Raises:
            SaveError: if waiting lines of the file still cannot be written, or if the path is not a regular file.
        """
        path = self._run_dir / name
        self.write_waiting(name)
        try:
            file = open_regular(path)
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise SaveError(f"{path}: cannot be read: {error.strerror}") from error
        try:
            os.fsync(file)
            return os.fstat(file).st_size
        finally:
            os.close(file)

    def has_other_lines(self, name: str) -> bool:
        """Return whether the file ``name`` contains bytes that this object did not append."""
        try:
            found = os.lstat(self._run_dir / name)
        except FileNotFoundError:
            return False
        return stat.S_ISREG(found.st_mode) and found.st_size > self._num_written.get(name, 0)

    def write_waiting(self, *names: str) -> None:
        """Write the waiting lines of the files ``names``.

        Raises:
            SaveError: if waiting lines still cannot be written.
        """
        for name in names:
            if name in self._waiting:
                self.append(name, ())
            if name in self._waiting:
                needed = room(len(self._waiting[name]), self._run_dir)
                raise SaveError(f"{self._run_dir / name}: cannot be written; {needed}")

    def cut_back(self, name: str, size: int) -> None:
        """Truncate the file ``name`` to ``size`` bytes, or log a warning if the file is shorter.

        Raises:
            SaveError: if the path is a link or another object that is not a regular file.
        """
        path = self._run_dir / name
        present = os.fstat(self._open(name)).st_size if os.path.lexists(path) else 0
        if present < size:
            problem = "%s: is %d bytes shorter than when the checkpoint was saved; earlier lines are missing."
            _log.warning(problem, path, size - present)
        elif present > size:
            os.ftruncate(self._open(name), size)
        if not self._is_kept_open:
            self._close_files()

    def rest(self) -> None:
        """Close the files after a fit. Waiting lines stay in memory. A later `append` opens its file again."""
        self._is_kept_open = False
        self._close_files()

    def close(self) -> None:
        """Write waiting lines and close the files.

        Raises:
            SaveError: if waiting lines cannot be written. These lines are discarded.
        """
        waiting = [*self._waiting]
        try:
            self.write_waiting(*waiting)
        finally:
            self._waiting = {}
            self.rest()

    def _open(self, name: str) -> int:
        """Open the file for appending if it is not open, and return its descriptor. Refuse all but regular files."""
        if name not in self._descriptors:
            # Create the directory only once. If its disk is unmounted during the run, a second mkdir would create the
            # directory on the disk that contains the mount point.
            if not self._has_begun:
                self._run_dir.mkdir(parents=True, exist_ok=True)
                self._has_begun = True
            path = self._run_dir / name
            try:
                self._descriptors[name] = open_to_append(path)
            except OSError as error:
                if error.errno == errno.EINVAL:  # the path is a link, so a later attempt would fail again
                    raise SaveError(f"{path}: cannot be written: {error.strerror}.") from error
                raise
        return self._descriptors[name]

    def _close_files(self) -> None:
        for name in list(self._descriptors):
            os.close(self._descriptors.pop(name))


class FileLogger(Logger, ABC):
    """Base class of loggers that append lines to files in the run directory. The files stay open during a fit.

    A subclass sets ``file_names``, and appends lines in `log_metrics`, `log_timing` or `log_text`. A checkpoint
    contains the size of each file. When a run is resumed in the same directory, the files are truncated to the sizes in
    the checkpoint.

    Raises:
        SettingError: if the trainer is built without a ``run_dir``.
    """

    file_names: ClassVar[tuple[str, ...]]

    def __init__(self) -> None:
        self._files: AppendedFiles | None = None
        self._is_own_run = False

    def state_dict(self) -> dict[str, Any]:
        """Return the sizes of the files in bytes."""
        return {"sizes": {name: self.files.size(name) for name in self.file_names}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Truncate the files to their sizes in the checkpoint, if the checkpoint belongs to this run directory."""
        if self._is_own_run:
            for name in self.file_names:
                self.files.cut_back(name, int(state_dict["sizes"].get(name, 0)))

    def on_before_load_checkpoint(self, trainer: Trainer, ckpt_path: Path) -> None:
        """Record whether the checkpoint belongs to this run directory."""
        self._is_own_run = is_of_run(ckpt_path, trainer.run_dir)

    def setup(self, trainer: Trainer) -> None:
        """Store the trainer's run directory. A file is created when its first line is logged."""
        self.finalize()
        self._files = AppendedFiles(trainer.run_dir, self.file_names[0])

    def on_enter_fit(
        self, trainer: Trainer, stack: ExitStack, train_dataloader: Any, val_dataloader: Any, loop: LoopCallback
    ) -> None:
        """Keep the files open until the fit ends."""
        self.files.keep_open()
        stack.callback(self.files.rest)

    def on_fit_end(self, trainer: Trainer, loop: LoopCallback) -> None:
        """Write the waiting lines. If the waiting lines still cannot be written, the fit fails."""
        self.files.write_waiting(*self.file_names)

    def finalize(self) -> None:
        """Write the waiting lines, and close the files."""
        if self._files is not None:
            self._files.close()

    def other_run_file(self) -> str | None:
        """Return the name of a file that contains lines of another run; None if no file contains such lines."""
        return next((name for name in self.file_names if self.files.has_other_lines(name)), None)

    @property
    def files(self) -> AppendedFiles:
        """Object that appends lines to the files of this logger."""
        assert self._files is not None, "a trainer sets its loggers up before it logs"
        return self._files


def is_of_run(ckpt_path: Path, run_dir: Path | None) -> bool:
    """Return whether the checkpoint is in a folder of ``run_dir``."""
    return run_dir is not None and ckpt_path.resolve().parent.parent == run_dir.resolve()


def number(value: float) -> float | str:
    """Return a finite value unchanged. Convert any other value to ``"NaN"``, ``"Infinity"`` or ``"-Infinity"``."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def plain(value: Any) -> Any:
    """Convert a nested value for strict JSON. NaN and infinite numbers become strings; see `number`."""
    if isinstance(value, float):
        return number(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
