"""`Measures`: what a trainer measures for callbacks. Nothing is measured unless a callback asks for it."""

from __future__ import annotations

from typing import Any

from loopwright.engine.feed import Feed
from loopwright.engine.flops import count_flops
from loopwright.engine.parts import Parts
from loopwright.engine.weighting import Weigher


class Measures:
    """Measurements of the current or last fit of a trainer. Use `Trainer.measures`.

    Read times only at log steps in ``on_train_batch_end``, when the values of the step were read back from the device.
    At other moments, an asynchronous device may still be working.

    Args:
        parts: objects of the run.
        feed: object that reads the training micro-batches; None before the first fit.
    """

    def __init__(self, parts: Parts, feed: Feed | None) -> None:
        self._parts = parts
        self._feed = feed

    @property
    def train_seconds(self) -> float:
        """Time spent in training steps since the fit began, in seconds, without validations and saves."""
        return self._parts.clock.seconds

    @property
    def data_seconds(self) -> float:
        """The part of `train_seconds` that was spent waiting for the dataloader; 0 without `time_data`."""
        return self._parts.clock.data_seconds

    def time_data(self) -> None:
        """Measure `data_seconds` in this fit. Call this method in ``on_fit_start``.

        The clock is read twice for each micro-batch.
        """
        if self._feed is not None:
            self._feed.time_reads(self._parts.clock)

    def num_samples(self, batch: Any) -> int | None:
        """Return the number of samples in ``batch``, the current training micro-batch; None if it is unknown.

        It is the number of indices that the dataloader has read, or else the first dimension of the tensors in the
        batch. No tensor is read.
        """
        if self._feed is None:
            return None
        return Weigher(self._feed.source, self._parts.log.warned).num_samples(batch, self._feed.index)

    def count_flops(self, batch: Any) -> int:
        """Return the number of floating-point operations of one forward and backward on a micro-batch.

        The time of the count is not part of `train_seconds`. The run is not changed; see `loopwright.engine.flops`.
        """
        return count_flops(self._parts, batch)

    def take_peak_memory(self) -> dict[str, int]:
        """Return the peak memory since the last call, by any callback, in bytes.

        Returns:
            On the CPU ``peak_process_bytes``, the resident memory of this process. On a GPU ``peak_allocated_bytes``,
            the tensors, and ``peak_reserved_bytes``, the memory that torch reserves for tensors. Empty if this machine
            cannot measure the peak, such as macOS.
        """
        return self._parts.device.take_peak_memory()

    @property
    def device_name(self) -> str:
        """Name of the hardware, such as "NVIDIA H200"; "cpu" for every CPU."""
        return self._parts.device.hardware

    def log(self, **values: float) -> None:
        """Pass durations, rates and sizes to the loggers, for the current step. Each name ends with its unit.

        `Trainer.log_metrics` is for values that are equal in a repeated run.
        """
        self._parts.log.log_timing(values, self._parts.state.global_step)
