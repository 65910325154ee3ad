"""Measures how long a save of 500 MB blocks training, in the background and in the foreground.

    python bench/background.py               # 9 rounds, in a temporary folder of the working directory
    python bench/background.py --rounds 21 --folder /where/checkpoints/go

Two trainers run in turn. One trainer saves in the background, and one trainer saves in the foreground. Each trainer
trains a model of 167 MB with AdamW, whose optimizer state has 334 MB. In each turn, a trainer trains one step and saves
a checkpoint. The time is measured from ``on_train_batch_end`` of the step to ``on_train_end``. Then the fit waits until
the checkpoint is complete, and the disk is synced. This wait is not measured. The first save of each trainer is
reported separately, because the first background save allocates the memory that later background saves reuse.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from loopwright import Callback, Checkpointing, Trainer, TrainingLoop

NUM_LAYERS = 96
WIDTH = 659  # the model consists of square float32 matrices; 500 MB with the two moments of AdamW


class Model(nn.Module):
    """A stack of square linear layers. A batch is a single row."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(NUM_LAYERS)))

    def forward(self, batch: Tensor) -> Tensor:
        """Return the mean square of the outputs."""
        return self.layers(batch).square().mean()


class Blocked(Callback):
    """Measures the seconds from the end of each step to ``on_train_end``, in which the trainer saves a checkpoint."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._begun = 0.0

    def on_train_batch_end(self, *_: Any) -> None:
        """Start the clock."""
        self._begun = time.perf_counter()

    def on_train_end(self, *_: Any) -> None:
        """Stop the clock. At this hook, a foreground save has ended, but a background save still runs."""
        self.seconds.append(time.perf_counter() - self._begun)


def make_trainer(folder: Path, *, background: bool) -> tuple[Trainer, Blocked]:
    """Return a trainer that saves after each step, and the callback that measures its saves."""
    blocked = Blocked()
    trainer = Trainer(
        model=Model,
        optimizer=partial(torch.optim.AdamW, lr=1e-4),
        loop=TrainingLoop(num_steps=1),
        device="cpu",
        checkpoint=Checkpointing(every_n_steps=1, keep_last=1, background=background),
        callbacks=[blocked],
        loggers=[],
        run_dir=folder / str(background),
    )
    return trainer, blocked


def described(values: Sequence[float]) -> str:
    """Format the median with the first and third quartiles."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{median:.3f} ({low:.3f} to {high:.3f})"


def main() -> None:
    """Measure foreground and background saves, and print the medians and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="number of saves of each trainer after its first save")
    parser.add_argument(
        "--folder", type=Path, default=Path.cwd(), help="folder for the checkpoints, on the disk to measure"
    )
    options = parser.parse_args()
    batches = [torch.ones(1, WIDTH)] * 2
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        made = [make_trainer(Path(folder), background=background) for background in (False, True)]
        for number in range(options.rounds + 1):
            for trainer, _ in made if number % 2 else reversed(made):
                trainer.fit(batches)
                os.sync()
        num_bytes = sum(file.stat().st_size for file in Path(folder, "True").rglob("*") if file.is_file())
    foreground, background = (blocked.seconds for _, blocked in made)
    print(
        f"{platform.platform()}, Python {platform.python_version()}, torch {torch.__version__}, {os.cpu_count()} cores"
    )
    print(f"{num_bytes / 1e6:.0f} MB a checkpoint, {options.rounds} rounds after the first")
    print(f"foreground: blocks {described(foreground[1:])} s, the first {foreground[0]:.3f} s")
    print(f"background: blocks {described(background[1:])} s, the first {background[0]:.3f} s")
    ratios = [back / front for front, back in zip(foreground[1:], background[1:], strict=True)]
    print(f"background / foreground: {described(ratios)}, the first {background[0] / foreground[0]:.3f}")


if __name__ == "__main__":
    main()
