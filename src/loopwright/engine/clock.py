"""`TrainClock`: how fast training is, leaving out validation and saving."""

from __future__ import annotations

import time


class TrainClock:
    """Adds up the time spent training between two log steps.

    Read only where the device was just read back, so that its work is done (as asynchronous devices return early).
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        self._since: float | None = None
        self._num_steps = 0

    def start(self) -> None:
        """Training goes on."""
        self._since = time.perf_counter()

    def stop(self) -> None:
        """Training pauses."""
        if self._since is not None:
            self._seconds += time.perf_counter() - self._since
            self._since = None

    def lap(self, step: int) -> dict[str, float]:
        """The rate since the last lap, of training up to ``step``."""
        was_running = self._since is not None
        self.stop()
        num_steps, seconds = step - self._num_steps, self._seconds
        self._num_steps, self._seconds = step, 0.0
        if was_running:
            self.start()
        return {"train/seconds": seconds, "train/steps_per_second": num_steps / seconds if seconds else 0.0}

    def begin(self, step: int) -> None:
        """Count from ``step``."""
        self._num_steps, self._seconds = step, 0.0
