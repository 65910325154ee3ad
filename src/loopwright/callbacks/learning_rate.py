"""`LearningRateMonitor`: logs the learning rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loopwright.hooks import Callback

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from loopwright.trainer import Trainer


class LearningRateMonitor(Callback):
    """Logs the learning rate at each log step as ``lr``, or as ``lr/0``, ``lr/1``, … for several parameter groups."""

    def __init__(self) -> None:
        self._rates: dict[str, float] = {}

    def logs(self, metric: str) -> bool:
        """Return whether ``metric`` is a learning rate."""
        return metric.partition("/")[0] == "lr"

    def on_after_optimizer_step(self, trainer: Trainer, model: nn.Module, optimizer: Optimizer) -> None:
        """Store the learning rate of this step before a scheduler changes it."""
        if trainer.is_log_step:
            rates = [float(group["lr"]) for group in optimizer.param_groups]
            is_one = len(rates) == 1
            self._rates = {"lr" if is_one else f"lr/{index}": rate for index, rate in enumerate(rates)}

    def on_train_batch_end(
        self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any], batch: Any, batch_idx: int
    ) -> None:
        """Log the stored learning rate. ``global_step`` has already been incremented for this step."""
        if self._rates:
            trainer.log_metrics(**self._rates)
            self._rates = {}
