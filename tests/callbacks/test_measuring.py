"""What all measuring callbacks have in common: they change no result, and read no tensor between log steps."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tiny
from loopwright import Callback, Checkpointing, TrainingLoop
from loopwright.callbacks import DataStall, GradientNorms, Memory, NoiseScale, Profile, Summary, Throughput, Utilisation

MEASURING: dict[str, Callable[[], Callback]] = {
    "throughput": Throughput,
    "memory": Memory,
    "data_stall": DataStall,
    "utilisation": lambda: Utilisation(peak_flops=1e12),
    "gradient_norms": GradientNorms,
    "noise_scale": lambda: NoiseScale(every_n_steps=4),
    "profile": lambda: Profile(2, 2),
    "summary": Summary,
}


class Noisy(nn.Module):
    """Draws from every random stream, counts its calls in a buffer, and reads a value of its batch if asked to."""

    def __init__(self, reads: bool) -> None:
        super().__init__()
        self.reads = reads
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 1))
        self.register_buffer("num_calls", torch.zeros((), dtype=torch.int64))
        self.last: Tensor | None = None

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Any]:
        features, target = batch
        self.num_calls += 1
        factor = 1 + 0.01 * (random.random() + float(np.random.rand()))
        if self.reads and float(features.detach()[0, 0]) > 10:
            raise AssertionError("no such row")
        self.last = self.layers(features) * factor
        return {"loss": (self.last - target).square().mean(), "num_items": len(target)}


def run(callbacks: list[Callback], run_dir: Path, reads: bool, log_every_n_steps: int = 3) -> tuple[Any, tiny.Logged]:
    logged = tiny.Logged()
    ours = tiny.trainer(
        TrainingLoop(num_steps=7, grad_accum_steps=2, eval_frequency=4),
        model=lambda: Noisy(reads),
        callbacks=callbacks,
        loggers=[logged],
        log_every_n_steps=log_every_n_steps,
        run_dir=run_dir,
        checkpoint=Checkpointing(every_n_steps=2),
    )
    with ours:
        ours.fit(tiny.batches(9), tiny.batches(2))
        return (tiny.snapshot(ours), ours.model.num_calls.item()), logged


@pytest.mark.parametrize(("name", "reads"), [*((name, False) for name in MEASURING), ("utilisation", True)])
def test_no_bit_of_a_run_changes(name: str, reads: bool, tmp_path: Path) -> None:
    plain, expected = run([], tmp_path / "plain", reads)
    measured, logged = run([MEASURING[name]()], tmp_path / "measured", reads)
    assert measured == plain
    assert {
        key: value for key, value in logged.metrics.items() if "gradient_norm" not in key and "noise" not in key
    } == expected.metrics


@pytest.mark.parametrize("name", MEASURING)
def test_nothing_is_read_back_between_log_steps(name: str, tmp_path: Path) -> None:
    counts: dict[int, int] = {}

    def note(ours: Any, *_: Any) -> None:
        counts[ours.global_step] = mode.count

    callbacks = [MEASURING[name](), tiny.Recorder(note)]
    loop = TrainingLoop(num_steps=8, grad_accum_steps=2)
    ours = tiny.trainer(loop, callbacks=callbacks, log_every_n_steps=4, run_dir=tmp_path)
    with tiny.ReadBacks() as mode, ours:
        ours.fit(tiny.batches(24))
    assert counts[1] == counts[3] == 0 and counts[7] == counts[4]


def test_a_second_fit_measures_only_its_own_steps(tmp_path: Path) -> None:
    logged = tiny.Logged()
    callbacks = [make() for name, make in MEASURING.items() if name != "profile"]
    loop = TrainingLoop(num_steps=3, grad_accum_steps=2)
    ours = tiny.trainer(loop, callbacks=callbacks, loggers=[logged], run_dir=tmp_path)
    with ours:
        for _ in range(2):
            ours.fit(tiny.batches(4))
    for name in ("train/samples_per_second", "train/data_stall_fraction", "train/teraflops_per_second"):
        assert [*logged.timing[name]] == [3, 6]
        assert all(value > 0 for value in logged.timing[name].values())
