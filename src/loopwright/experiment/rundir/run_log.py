"""`run.log`: what a run said, with the time at which it said it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from loopwright.experiment.console.messages import complain, one_line

LOGGER = logging.getLogger("loopwright")
_WARNINGS = logging.getLogger("py.warnings")


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if record.name == _WARNINGS.name:
            message = message.strip().partition("\n")[0]  # what follows is source and tracebacks: for the file
        return one_line(message)


class _ToFile(logging.FileHandler):
    """Appends to the log; that it cannot is no reason to end a run, and is said once."""

    def __init__(self, file: Path) -> None:
        super().__init__(file, encoding="utf-8")
        self._is_said = False

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exception()
        if not self._is_said and isinstance(error, OSError):
            self._is_said = True
            complain(f"{self.baseFilename}: cannot be written: {error.strerror or error}")


class _ToStderr(logging.Handler):
    """Writes to what ``sys.stderr`` is at the time: a live line puts itself in its place, to keep below all else."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(self.format(record), file=sys.stderr, flush=True)
        except (OSError, ValueError):
            self.handleError(record)


@contextmanager
def run_log(file: Path) -> Iterator[None]:
    """Write what is logged under ``loopwright`` to ``file`` while the context is open; warnings go to stderr too.

    What Python's `warnings` would show is recorded in the same way.
    """
    to_file = _ToFile(file)
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    to_stderr = _ToStderr()
    to_stderr.setLevel(logging.WARNING)
    to_stderr.setFormatter(_OneLine())
    to_stderr.addFilter(lambda record: not getattr(record, "is_said", False))
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
        with suppress(OSError):  # of lines that it has complained of already
            to_file.close()


def log_only(message: str) -> None:
    """Record ``message`` in the run's log as an error that is said on stderr in another form."""
    LOGGER.error(message, extra={"is_said": True})
