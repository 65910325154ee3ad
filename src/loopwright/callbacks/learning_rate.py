"""`LearningRateMonitor`: records the learning rate beside the training losses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loopwright.hooks import Callback

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from loopwright.trainer import Trainer


class LearningRateMonitor(Callback):
    """Logs the learning rate with which each logged step was made.

    The name is ``lr``; with several parameter groups ``lr/0``, ``lr/1``, … At other steps it looks at the step's number
    and does nothing.
    """

    def on_after_optimizer_step(self, trainer: Trainer, model: nn.Module, optimizer: Optimizer) -> None:
        """Log the rate just used, before a scheduler changes it."""
        step = trainer.global_step + 1  # moves when the step is completed, after the schedulers
        if step % trainer.log_every_n_steps and (trainer.plan is None or step != trainer.plan.stop_step):
            return
        rates = [float(group["lr"]) for group in optimizer.param_groups]
        metrics = {"lr": rates[0]} if len(rates) == 1 else {f"lr/{index}": rate for index, rate in enumerate(rates)}
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step)
