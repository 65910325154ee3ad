"""The training with the `Trainer` of Lightning, with its default logger, progress bar and checkpoints.

The full run writes its checkpoints with `ModelCheckpoint`, which calls `torch.save` and does not sync the files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.optim import Optimizer

from peer_loops.work import LOG_EVERY_STEPS, Run, Work


class Module(LightningModule):
    """Adapts the model of a workload."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.model = work.make_model()
        self.work = work

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss, and log it in the full run."""
        loss: Tensor = self.model(batch)
        if self.work.make_val_loader is not None:
            self.log("train/loss", loss, batch_size=1)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log the loss."""
        self.log("val/loss", self.model(batch), batch_size=1)

    def configure_optimizers(self) -> Optimizer:
        """Return the optimizer."""
        return self.work.make_optimizer(self.model.parameters())


def prepare(work: Work, folder: Path) -> Run:
    """Build a `Trainer` of Lightning."""
    loader, val_loader = work.make_loader(), work.make_val_loader and work.make_val_loader()
    more: dict[str, Any] = {}
    if val_loader is not None:
        more = {
            "accumulate_grad_batches": work.grad_accum_steps,
            "log_every_n_steps": LOG_EVERY_STEPS,
            "val_check_interval": work.eval_every_steps * work.grad_accum_steps,
            "callbacks": [ModelCheckpoint(every_n_train_steps=work.eval_every_steps, save_top_k=-1)],
        }
    trainer = Trainer(max_epochs=work.num_epochs, default_root_dir=folder, **more)
    module = Module(work)

    def run() -> nn.Module:
        trainer.fit(module, loader, val_loader)
        return module.model

    return run
