"""`TrainClock`: measures the speed of training, without validations and saves."""

from __future__ import annotations

import time


class TrainClock:
    """Adds up the time spent in training between two log steps.

    Call `lap` only after a value was read back from the device. Otherwise, an asynchronous device may still be working,
    and the time of this work would be missing.
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        self._since: float | None = None
        self._num_steps = 0

    def start(self) -> None:
        """Start the clock, or continue after a pause."""
        self._since = time.perf_counter()

    def stop(self) -> None:
        """Pause the clock."""
        if self._since is not None:
            self._seconds += time.perf_counter() - self._since
            self._since = None

    def lap(self, step: int) -> dict[str, float]:
        """Return the training time in seconds and the steps per second since the last lap, at the current ``step``."""
        was_running = self._since is not None
        self.stop()
        num_steps, seconds = step - self._num_steps, self._seconds
        self._num_steps, self._seconds = step, 0.0
        if was_running:
            self.start()
        return {"train/seconds": seconds, "train/steps_per_second": num_steps / seconds if seconds else 0.0}

    def leave_out(self, step: int) -> float:
        """Return the training time in seconds since the last lap, and leave it and its steps out of the next lap."""
        return self.lap(step)["train/seconds"]

    def begin(self, step: int) -> None:
        """Set the clock to 0 seconds at ``step``."""
        self._num_steps, self._seconds = step, 0.0
