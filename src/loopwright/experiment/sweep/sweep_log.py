"""`SweepLog`: appends what the runner of a sweep says to ``sweep.log``."""

from __future__ import annotations

import logging
import os
from datetime import datetime
from pathlib import Path

from loopwright.regular_files import open_to_append

LOG_FILE = "sweep.log"
_log = logging.getLogger("loopwright")


class SweepLog:
    """Appends lines with the time to ``sweep.log``.

    Args:
        directory: directory of the sweep.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / LOG_FILE

    def write(self, text: str) -> None:
        """Append each line of ``text``. If the file cannot be written, only a warning is logged."""
        time = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        data = "".join(f"{time} {line}\n" for line in text.splitlines())
        try:
            descriptor = open_to_append(self._path)
            try:
                os.write(descriptor, data.encode(errors="backslashreplace"))
            finally:
                os.close(descriptor)
        except OSError as error:
            _log.warning("%s: cannot be written: %s", self._path, error.strerror or error)
