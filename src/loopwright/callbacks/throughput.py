"""`Throughput`: logs how many samples and items a fit trains per second."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from loopwright.hooks import Callback

if TYPE_CHECKING:
    from torch import nn

    from loopwright.loop import LoopCallback
    from loopwright.trainer import Trainer


class Throughput(Callback):
    """Logs ``train/samples_per_second`` and ``train/items_per_second`` at log steps.

    The rates are means since the previous log step, without the time of validations and saves, and without a step that
    compiles the model. The number of items is the model output ``num_items``, such as the number of unmasked tokens. If
    the model has no output ``num_items``, only samples are logged. If the number of samples in a micro-batch is
    unknown, only items are logged. If several processes train together, the samples and items of all processes are
    counted. The trainer logs the steps per second even without this callback.
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        self._is_shared = self._is_compiling = False
        self._clear()

    def _clear(self) -> None:
        self._num_samples: int | None = 0  # None: unknown
        self._num_items = 0.0
        self._num_items_on_device: Tensor | None = None  # transferred to the CPU only at log steps
        self._has_items = False

    def on_fit_start(self, trainer: Trainer, train_dataloader: Any, val_dataloader: Any, loop: LoopCallback) -> None:
        """Reset the counts."""
        self._seconds = 0.0
        self._is_shared = trainer.world_size > 1
        self._is_compiling = trainer.measures.is_compile_pending
        self._clear()

    def on_train_batch_end(
        self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any], batch: Any, batch_idx: int
    ) -> None:
        """Count a micro-batch. At the end of a log step, log the rates."""
        measures, items = trainer.measures, outputs.get("num_items")
        is_counted = not (self._is_shared and trainer.is_padding)
        if is_counted and self._num_samples is not None:
            num_samples = measures.num_samples(batch)
            self._num_samples = None if num_samples is None else self._num_samples + num_samples
        if is_counted and items is not None:
            self._has_items = True
            if isinstance(items, Tensor):
                before = self._num_items_on_device
                self._num_items_on_device = _exact(items) if before is None else before + _exact(items)
            else:
                self._num_items += items
        if self._is_compiling:
            if trainer.should_run_optimizer_step:
                self._seconds, self._is_compiling = measures.train_seconds, False
                self._clear()
        elif trainer.is_log_step and trainer.should_run_optimizer_step:
            self._log(trainer)

    def _log(self, trainer: Trainer) -> None:
        on_device = self._num_items_on_device
        num_items = self._num_items + (0 if on_device is None else on_device.item())
        now = trainer.measures.train_seconds
        seconds, self._seconds = now - self._seconds, now
        counts: dict[str, float | None] = {
            "samples": self._num_samples,
            "items": num_items if self._has_items else None,
        }
        self._clear()
        if self._is_shared:
            counts = _summed(trainer, counts)
        if seconds:
            rates = {f"train/{name}_per_second": count / seconds for name, count in counts.items() if count is not None}
            trainer.measures.log(**rates)


def _summed(trainer: Trainer, counts: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return the counts of all processes. The number of samples is unknown if one process does not know its number."""
    is_unknown = counts["samples"] is None
    known = {name: count for name, count in counts.items() if count is not None}
    sums = trainer.sum_over_processes({**known, "is_unknown": float(is_unknown)})
    return {"samples": None if sums["is_unknown"] else sums["samples"], "items": sums.get("items")}


def _exact(num_items: Tensor) -> Tensor:
    """Convert a number of items to a wide dtype, in which sums are exact. MPS does not support float64."""
    if not num_items.is_floating_point():
        return num_items.detach().to(torch.int64)
    return num_items.detach().to(torch.float32 if num_items.device.type == "mps" else torch.float64)
