"""The training with the `Trainer` of Transformers.

The dataloader, the optimizer and a constant learning rate are given, and gradients are not clipped, so that all loops
train the same weights. The full run writes the checkpoints of the library, which are not synced.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments

from peer_loops.work import LOG_EVERY_STEPS, Run, Work


class OwnTrainer(Trainer):
    """A `Trainer` for models that return the loss of a batch, with the dataloaders of the workload."""

    work: Work

    def get_train_dataloader(self) -> Any:
        """Return the training dataloader."""
        return self.accelerator.prepare(self.work.make_loader())

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """Return the validation dataloader."""
        assert self.work.make_val_loader is not None
        return self.accelerator.prepare(self.work.make_val_loader())

    def compute_loss(self, model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the loss of a batch."""
        return model(inputs)

    def prediction_step(self, model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> tuple[Tensor, None, None]:
        """Return the loss of a validation batch."""
        with torch.no_grad():
            return model(inputs), None, None


def prepare(work: Work, folder: Path) -> Run:
    """Build a `Trainer` of Transformers."""
    model = work.make_model()
    optimizer = work.make_optimizer(model.parameters())
    more: dict[str, Any] = {}
    if work.make_val_loader is not None:
        more = {
            "gradient_accumulation_steps": work.grad_accum_steps,
            "logging_steps": LOG_EVERY_STEPS,
            "eval_strategy": "steps",
            "eval_steps": work.eval_every_steps,
            "save_steps": work.eval_every_steps,
        }
    arguments = TrainingArguments(
        output_dir=str(folder), num_train_epochs=work.num_epochs, max_grad_norm=0.0, report_to="none", **more
    )
    constant = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    data: Any = work.make_loader().dataset
    val: Any = work.make_val_loader().dataset if work.make_val_loader is not None else None
    trainer = OwnTrainer(model, arguments, train_dataset=data, eval_dataset=val, optimizers=(optimizer, constant))
    trainer.work = work

    def run() -> nn.Module:
        trainer.train()
        return model

    return run
