"""`TrainClock`: measures the training time without validations and saves, and the time spent waiting for batches."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class TrainClock:
    """Measures the time spent in training during a fit.

    Copy a tensor from the device to the host before you read the clock. Otherwise, the device may still be computing,
    and the measured time is too short.

    Attributes:
        data_seconds: total time of all reads from iterators that `timed` has returned.
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
        """Start the clock, or continue after `stop`."""
        self._since = time.perf_counter()

    def stop(self) -> None:
        """Stop the clock. The measured time is kept."""
        self._seconds, self._since = self.seconds, None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the clock during the context. At the end, start the clock if it was running before."""
        was_running = self._since is not None
        self.stop()
        try:
            yield
        finally:
            if was_running:
                self.start()

    def timed(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Return an iterator over ``batches`` that adds the time of each read to `data_seconds`."""
        return _TimedIterator(batches, self)

    def lap(self, step: int) -> dict[str, float]:
        """Begin a new lap at ``step``. Return the seconds of training and the steps per second of the previous lap."""
        total = self.seconds
        num_steps, seconds = step - self._num_steps, total - self._lap_seconds
        self._num_steps, self._lap_seconds = step, total
        return {"train/seconds": seconds, "train/steps_per_second": num_steps / seconds if seconds else 0.0}

    def leave_out(self, step: int) -> float:
        """Begin a new lap at ``step``. Return the seconds of training in the previous lap."""
        return self.lap(step)["train/seconds"]

    def begin(self, step: int) -> None:
        """Stop the clock, set its times to 0, and begin a new lap at ``step``."""
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
