"""`DataStall`: logs the fraction of the training time in which the loop waits for the dataloader."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loopwright.hooks import Callback

if TYPE_CHECKING:
    from torch import nn

    from loopwright.loop import LoopCallback
    from loopwright.trainer import Trainer


class DataStall(Callback):
    """Logs ``train/data_stall_fraction`` at each log step.

    The fraction is the time in which the loop waits for the next micro-batch, divided by the training time. Both times
    are measured since the previous log step, without a step that compiles the model. Without dataloader workers, the
    loop also waits while samples are read and collated. If the fraction is high, use more workers (``num_workers``) or
    cheaper transformations. On a GPU, a high fraction may be harmless, because the GPU may compute while the loop
    waits. If several processes train together, the largest fraction of a process is logged, because the other processes
    wait for this process.
    """

    def __init__(self) -> None:
        self._before = (0.0, 0.0)  # data_seconds and train_seconds at the previous log step
        self._is_shared = self._is_compiling = False

    def on_fit_start(self, trainer: Trainer, train_dataloader: Any, val_dataloader: Any, loop: LoopCallback) -> None:
        """Start to measure how long the loop waits for the dataloader."""
        trainer.measures.time_data()
        self._before = (0.0, 0.0)
        self._is_shared = trainer.world_size > 1
        self._is_compiling = trainer.measures.is_compile_pending

    def on_train_batch_end(
        self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any], batch: Any, batch_idx: int
    ) -> None:
        """At the end of a log step, log the fraction."""
        if (trainer.is_log_step or self._is_compiling) and trainer.should_run_optimizer_step:
            now = (trainer.measures.data_seconds, trainer.measures.train_seconds)
            waited, trained = (later - earlier for later, earlier in zip(now, self._before, strict=True))
            self._before = now
            if self._is_compiling:
                self._is_compiling = False
                return
            fractions = {"train/data_stall_fraction": waited / trained} if trained else {}
            if self._is_shared:
                fractions = trainer.max_over_processes(fractions)
            if fractions:
                trainer.measures.log(**fractions)
