"""`TrainClock`: measures the time of training, without validations and saves, and the waits for the dataloader."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class TrainClock:
    """Adds up the time spent in training during a fit.

    Read the clock only after a value was read back from the device. Otherwise, an asynchronous device may still be
    working, and the time of this work would be missing.

    Attributes:
        data_seconds: time spent waiting for the iterators that `timed` has returned.
    """

    def __init__(self) -> None:
        self.data_seconds = 0.0
        self._seconds = 0.0
        self._since: float | None = None
        self._lap_seconds = 0.0
        self._num_steps = 0

    @property
    def seconds(self) -> float:
        """Training time in seconds since `begin`."""
        return self._seconds + (0.0 if self._since is None else time.perf_counter() - self._since)

    def start(self) -> None:
        """Start the clock, or continue after a pause."""
        self._since = time.perf_counter()

    def stop(self) -> None:
        """Pause the clock."""
        self._seconds, self._since = self.seconds, None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Pause the clock during the context, if it is running."""
        was_running = self._since is not None
        self.stop()
        try:
            yield
        finally:
            if was_running:
                self.start()

    def timed(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Return an iterator over the same batches that adds the time of each read to `data_seconds`."""
        return _TimedIterator(batches, self)

    def lap(self, step: int) -> dict[str, float]:
        """Return the training time in seconds and the steps per second since the last lap, at the current ``step``."""
        total = self.seconds
        num_steps, seconds = step - self._num_steps, total - self._lap_seconds
        self._num_steps, self._lap_seconds = step, total
        return {"train/seconds": seconds, "train/steps_per_second": num_steps / seconds if seconds else 0.0}

    def leave_out(self, step: int) -> float:
        """Return the training time in seconds since the last lap, and leave it and its steps out of the next lap."""
        return self.lap(step)["train/seconds"]

    def begin(self, step: int) -> None:
        """Stop the clock, and set it to 0 seconds at ``step``."""
        self.data_seconds = self._seconds = self._lap_seconds = 0.0
        self._since = None
        self._num_steps = step


class _TimedIterator:
    def __init__(self, batches: Iterator[Any], clock: TrainClock) -> None:
        self._batches = batches
        self._clock = clock

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        began = time.perf_counter()
        try:
            return next(self._batches)
        finally:
            self._clock.data_seconds += time.perf_counter() - began
