"""The training with Loopwright."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from loopwright import Checkpointing, Trainer, TrainingLoop
from loopwright.loggers import JSONLinesLogger
from peer_loops.work import Mlp, Run, Work, seeded


class CountingMlp(Mlp):
    """An `Mlp` that returns the number of rows as well. Micro-batches are weighted by it in a window.

    The dataloader of ready batches does not contain this number.
    """

    def forward(self, batch: Sequence[Tensor]) -> Any:
        """Return the loss and the number of rows."""
        return {"loss": super().forward(batch), "num_items": len(batch[0])}


def prepare(work: Work, folder: Path) -> Run:
    """Build a `Trainer`. For the full run it has a logger and checkpoints, with their default settings."""
    loader, val_loader = work.make_loader(), work.make_val_loader and work.make_val_loader()
    make_model, more = work.make_model, dict[str, Any]()
    if val_loader is not None:
        make_model = partial(seeded, CountingMlp)
        more = {"checkpoint": Checkpointing(), "loggers": [JSONLinesLogger()], "run_dir": folder}
    trainer = Trainer(
        model=make_model,
        optimizer=work.make_optimizer,
        loop=TrainingLoop(
            num_steps=work.num_steps,
            grad_accum_steps=work.grad_accum_steps,
            eval_frequency=work.eval_every_steps or None,
        ),
        **more,
    )

    def run() -> nn.Module:
        trainer.fit(loader, val_loader)
        return trainer.model

    return run
