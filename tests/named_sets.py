"""User code of a test: data whose validation sets have given names, and a callback that logs a metric of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from loopwright import Callback
from loopwright.data import Loader, Splits, TensorData

CONFIGS = {
    "data/named": "_target_: named_sets.data\nnames: [web]\nbatch_size: 4\nnum_workers: 0\n",
    "callbacks/gap": "gap:\n  _target_: named_sets.Gap\n",
}


def data(names: Sequence[str], batch_size: int, num_workers: int) -> Splits:
    """Return training data, and one validation set for each of ``names``."""
    features = torch.arange(24.0).reshape(12, 2).sin()
    rows = TensorData({"features": features, "label": torch.arange(12) % 3})
    loaders = [Loader(rows, batch_size=batch_size, num_workers=num_workers) for _ in range(1 + len(names))]
    return Splits(train=loaders[0], val=dict(zip(names, loaders[1:], strict=True)))


class Gap(Callback):
    """Logs ``gap`` after each micro-batch."""

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        trainer.log_metrics(gap=1.0 / trainer.global_step)


def write_configs(folder: Path) -> None:
    """Write configuration files that name the objects of this module."""
    for name, text in CONFIGS.items():
        (folder / f"{name}.yaml").parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.yaml").write_text(text)
