"""`run.log`: what a run said, with the time at which it said it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOGGER = logging.getLogger("loopwright")


@contextmanager
def run_log(file: Path) -> Iterator[None]:
    """Write what is logged under ``loopwright`` to ``file`` while the context is open; warnings go to stderr too.

    Python's warnings are recorded in the same way.
    """
    to_file = logging.FileHandler(file, encoding="utf-8")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    to_stderr = logging.StreamHandler(sys.stderr)
    to_stderr.setLevel(logging.WARNING)
    to_stderr.addFilter(lambda record: not getattr(record, "is_said", False))
    level = LOGGER.level
    LOGGER.setLevel(logging.INFO)
    for handler in (to_file, to_stderr):
        LOGGER.addHandler(handler)
    try:
        yield
    finally:
        LOGGER.setLevel(level)
        for handler in (to_file, to_stderr):
            LOGGER.removeHandler(handler)
            handler.close()


def log_only(message: str) -> None:
    """Record ``message`` in the run's log as an error that is said on stderr in another form."""
    LOGGER.error(message, extra={"is_said": True})
