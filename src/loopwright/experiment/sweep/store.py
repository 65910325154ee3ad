"""`SweepStore`: the index of a sweep in memory, which is written to ``sweep.json`` after each change."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from loopwright.experiment.sweep.index import JobEntry, SweepIndex, with_results
from loopwright.experiment.sweep.index_file import write_index
from loopwright.run_lock import hold

_SECONDS_BETWEEN_WRITES = 0.5


class SweepStore:
    """Holds the index of a sweep. Only one process at a time may have a store of a sweep: the runner.

    Changes within half a second are written together. Several threads may use a store.

    Args:
        directory: directory of the sweep.
        index: index of the sweep.
    """

    def __init__(self, directory: Path, index: SweepIndex) -> None:
        self.directory = directory
        self._index = with_results(index)
        self._lock = threading.RLock()
        self._last_write = 0.0
        self._timer: threading.Timer | None = None

    @property
    def index(self) -> SweepIndex:
        """The current index."""
        return self._index

    def change(self, job: JobEntry) -> None:
        """Replace the entry of a job."""
        with self._lock:
            self._set(with_results(self._index.with_job(job)))

    def change_fields(self, number: int, **changes: Any) -> None:
        """Replace fields of the entry of a job. Its other fields keep their current values."""
        with self._lock:
            self.change(replace(self._index.jobs[number], **changes))

    def set(self, **changes: Any) -> None:
        """Replace fields of the index, such as ``state``."""
        with self._lock:
            self._set(with_results(replace(self._index, **changes)))

    def flush(self) -> None:
        """Write the index now."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            write_index(self.directory, self._index)
            self._last_write = time.monotonic()

    def _set(self, index: SweepIndex) -> None:
        self._index = index
        if self._timer is None:
            wait = max(0.0, self._last_write + _SECONDS_BETWEEN_WRITES - time.monotonic())
            self._timer = threading.Timer(wait, self._write_later)
            self._timer.daemon = True
            self._timer.start()

    def _write_later(self) -> None:
        with self._lock:
            if self._timer is not None:
                self._timer = None
                write_index(self.directory, self._index)
                self._last_write = time.monotonic()


@contextmanager
def opened_store(directory: Path, index: SweepIndex) -> Iterator[SweepStore]:
    """Lock the directory of a sweep for this runner, and write the index at the end.

    Raises:
        CheckpointError: if another runner holds the lock.
    """
    with hold(directory):
        store = SweepStore(directory, index)
        store.flush()
        try:
            yield store
        finally:
            store.flush()
