"""`DataStall`: logs the share of the training time that is spent waiting for the dataloader."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loopwright.hooks import Callback

if TYPE_CHECKING:
    from torch import nn

    from loopwright.loop import LoopCallback
    from loopwright.trainer import Trainer


class DataStall(Callback):
    """Logs ``train/data_stall_fraction`` at log steps, over the training time since the last log step.

    It is the time in which the loop waits for the next micro-batch, divided by the training time. Without workers, the
    wait is the whole time of reading and collating. If the value is high, use more workers (``num_workers``) or cheaper
    transformations. On a GPU, a wait may overlap with work of the GPU. A value near 0 then shows that the dataloader
    does not slow the run down.
    """

    def __init__(self) -> None:
        self._before = (0.0, 0.0)  # time of waiting and time of training at the last log step, in seconds

    def on_fit_start(self, trainer: Trainer, train_dataloader: Any, val_dataloader: Any, loop: LoopCallback) -> None:
        """Turn on the clock around reads of the dataloader."""
        trainer.measures.time_data()
        self._before = (0.0, 0.0)

    def on_train_batch_end(
        self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any], batch: Any, batch_idx: int
    ) -> None:
        """At the end of a log step, log the share."""
        if trainer.is_log_step and trainer.should_run_optimizer_step:
            now = (trainer.measures.data_seconds, trainer.measures.train_seconds)
            waited, trained = (later - earlier for later, earlier in zip(now, self._before, strict=True))
            self._before = now
            if trained:
                trainer.measures.log(**{"train/data_stall_fraction": waited / trained})
