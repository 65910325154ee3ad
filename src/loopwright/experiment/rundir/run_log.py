"""`run_log`: writes the messages and warnings of a run to the file ``run.log``."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path

from loopwright.errors import SaveError
from loopwright.experiment.console.messages import complain, one_line
from loopwright.regular_files import open_to_append

LOGGER = logging.getLogger("loopwright")
_WARNINGS = logging.getLogger("py.warnings")


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if record.name == _WARNINGS.name:
            # Only the log file contains the further lines of a warning, such as the source code.
            message, _, _ = message.strip().partition("\n")
        return one_line(message)


class _Masked(logging.Formatter):
    def __init__(self, mask: Callable[[str], str]) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")
        self._mask = mask

    def format(self, record: logging.LogRecord) -> str:
        return self._mask(super().format(record))


class _ToFile(logging.FileHandler):
    """Handler that appends to the log file. The first failed write prints a message, and the run continues."""

    def __init__(self, file: Path) -> None:
        super().__init__(file, encoding="utf-8")
        self._has_complained = False

    def _open(self) -> TextIOWrapper:
        return open(open_to_append(self.baseFilename), "a", encoding="utf-8")

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exception()
        if not self._has_complained and isinstance(error, OSError):
            self._has_complained = True
            complain(f"{self.baseFilename}: cannot be written: {error.strerror or error}")


class _ToStderr(logging.Handler):
    """Handler that looks up ``sys.stderr`` again for each message.

    A progress logger temporarily replaces ``sys.stderr`` with an object that prints text above the progress line.
    """

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(self.format(record), file=sys.stderr, flush=True)
        except (OSError, ValueError):
            self.handleError(record)


@contextmanager
def run_log(file: Path, mask: Callable[[str], str] = str) -> Iterator[None]:
    """While the context is open, append messages of the logger ``loopwright`` to ``file``.

    Warnings of Python's `warnings` module are appended too. Warnings and errors are also printed to stderr.

    Args:
        file: path of the log file.
        mask: function that masks the values of environment variables in a line of the file.

    Raises:
        SaveError: if the file cannot be opened, or is not a regular file. Links are refused.
    """
    try:
        to_file = _ToFile(file)
    except OSError as error:
        raise SaveError(f"{file}: cannot be written: {error.strerror or error}") from error
    to_file.setFormatter(_Masked(mask))
    to_stderr = _ToStderr()
    to_stderr.setLevel(logging.WARNING)
    to_stderr.setFormatter(_OneLine())
    to_stderr.addFilter(lambda record: not getattr(record, "file_only", False))
    level = LOGGER.level
    LOGGER.setLevel(logging.INFO)
    logging.captureWarnings(True)
    for logger in (LOGGER, _WARNINGS):
        logger.addHandler(to_file)
        logger.addHandler(to_stderr)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        LOGGER.setLevel(level)
        for logger in (LOGGER, _WARNINGS):
            logger.removeHandler(to_file)
            logger.removeHandler(to_stderr)
        with suppress(OSError):  # the handler has already printed a message about the failed write
            to_file.close()


def log_only(message: str) -> None:
    """Log ``message`` as an error to the log file only. The caller prints another message to stderr."""
    LOGGER.error(message, extra={"file_only": True})
