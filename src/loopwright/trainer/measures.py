"""`Measures`: methods with which a callback measures training time, memory and FLOPs of a fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from loopwright.engine.feed import Feed
from loopwright.engine.flops import count_flops
from loopwright.engine.own_gradient import own_gradient_square, square_of
from loopwright.engine.parts import Parts
from loopwright.engine.weighting import Weigher, given_items


class Measures:
    """Measurements of the current or last fit of a trainer. Use `Trainer.measures`.

    Read times only in ``on_train_batch_end`` of a log step, because the metrics were then copied from the device to the
    host. At other times, the device may still be computing, and the measured time is too short.

    Args:
        parts: model, device, hooks and other objects of this run; see `Parts`.
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
        """Seconds spent waiting for the training dataloader, included in `train_seconds`; 0 without `time_data`."""
        return self._parts.clock.data_seconds

    @property
    def is_compile_pending(self) -> bool:
        """Whether the next training step compiles the model. The trainer logs its time as ``train/compile_seconds``.

        Leave this step out of a rate.
        """
        return self._parts.strategy.is_compile_pending

    def time_data(self) -> None:
        """Measure `data_seconds` in this fit. Call this method in ``on_fit_start``.

        The clock is read twice for each micro-batch.
        """
        if self._feed is not None:
            self._feed.time_reads(self._parts.clock)

    def num_samples(self, batch: Any) -> int | None:
        """Return the number of samples in ``batch``, the current training micro-batch; None: unknown.

        The number is the number of indices in the micro-batch, if the dataloader reads samples by index. Otherwise, the
        number is the length of the first dimension of the tensors in ``batch``. The values of tensors are not read.
        """
        if self._feed is None:
            return None
        return Weigher(self._feed.source, self._parts.log.warned).num_samples(batch, self._feed.index)

    def num_items(self, outputs: Mapping[str, Any], batch: Any) -> float | None:
        """Return the number of items in ``batch``, the current training micro-batch; None: unknown.

        The number is the output ``num_items`` of the model, or the number of samples. A tensor on an accelerator is
        read, which waits for the device.
        """
        if outputs.get("num_items") is not None:
            return float(given_items(outputs))
        return self.num_samples(batch)

    def gradient_square(self, parameters: Sequence[Tensor]) -> float:
        """Return the squared L2 norm of the gradients of the step. Call it in ``on_before_optimizer_step``.

        The call waits for the device.
        """
        return square_of(each.grad for each in parameters if each.grad is not None)

    def own_gradient_square(self, batch: Any, num_items: float, parameters: Sequence[Tensor]) -> tuple[float, float]:
        """Compute the gradient of one micro-batch in this process, and return its squared L2 norm and its items.

        The call does not change the run, and its time is not included in `train_seconds`; see
        `loopwright.engine.own_gradient`. It waits for the device.
        """
        return own_gradient_square(self._parts, batch, num_items, parameters)

    def count_flops(self, batch: Any) -> int:
        """Return the number of floating-point operations of one forward and backward on a micro-batch.

        The count does not change the run, and its time is not included in `train_seconds`; see
        `loopwright.engine.flops`.
        """
        return count_flops(self._parts, batch)

    def take_peak_memory(self) -> dict[str, int]:
        """Return the peak memory in bytes since the last call of this method by any callback.

        Returns:
            On the CPU: ``peak_process_bytes``, the peak resident memory of this process. On a GPU:
            ``peak_allocated_bytes``, the peak memory of tensors, and ``peak_reserved_bytes``, the peak memory that
            torch reserves for tensors. Empty if the operating system, such as macOS, cannot measure the peak.
        """
        return self._parts.device.take_peak_memory()

    @property
    def device_name(self) -> str:
        """Name of the hardware, such as "NVIDIA H200"; "cpu" for every CPU."""
        return self._parts.device.hardware

    def log(self, **values: float) -> None:
        """Pass durations, rates and sizes to the loggers, for the current step. Each name must end with its unit.

        Use `Trainer.log_metrics` for values that would be equal in a repeated run.
        """
        self._parts.log.log_timing(values, self._parts.state.global_step)
