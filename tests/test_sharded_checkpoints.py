"""Checkpoints that several processes write together with ``strategy=fsdp``: resumes, other numbers of processes, faults.

The processes are forked, and gloo connects them.
"""

from __future__ import annotations

import errno
import json
import os
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import loopwright.checkpoint.write as writing
from loopwright import Callback, Checkpointing, TrainingLoop
from loopwright.callbacks import ExponentialMovingAverage
from loopwright.checkpoint import read_checkpoint, steps_in, verify_checkpoint
from loopwright.data import Loader
from loopwright.device import Device
from loopwright.errors import CheckpointError, SaveError
from loopwright.loggers import JSONLinesLogger
from ranked import on_ranks
from tests.test_sharded import Blocks, gathered
from tiny import adamw, is_bitwise_equal, largest_difference, rows, trainer

DEVICES = {"fsdp": Device(kind="cpu", strategy="fsdp"), "ddp": "cpu"}


class Crashes(Callback):
    """Raises in every process after step 7."""

    def on_train_batch_end(self, trainer: Any, model: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 7:
            raise RuntimeError("crashed")


def build(run_dir: Path, strategy: str, dropout: float = 0.0, crashes: bool = False, **saving: Any) -> Any:
    return trainer(
        TrainingLoop(num_steps=10, grad_accum_steps=2, eval_frequency=4),
        model=partial(Blocks, dropout=dropout),
        optimizer=adamw,
        device=DEVICES[strategy],
        checkpoint=Checkpointing(every_n_steps=3, **saving),
        callbacks=[ExponentialMovingAverage(0.8), *([Crashes()] if crashes else [])],
        loggers=[JSONLinesLogger()],
        log_every_n_steps=4,
        run_dir=run_dir,
    )


def run(rank: int, run_dir: Path, strategy: str, how: str = "straight", dropout: float = 0.0, **saving: Any) -> Any:
    """Train 10 steps, or crash after step 7, or resume from the checkpoint of step 6."""
    ours = build(run_dir, strategy, dropout, how == "crash", **saving)
    data = Loader(rows(23, torch.float64), batch_size=3, shuffle=True)
    with pytest.raises(RuntimeError, match="crashed") if how == "crash" else nullcontext():
        ours.fit(data, Loader(rows(9, torch.float64), batch_size=4), ckpt_path="last" if how == "resume" else None)
    digest = ours.weights_digest()
    return gathered(ours), digest, ours.validate(Loader(rows(7, torch.float64), batch_size=3))


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("saving", [{}, {"background": True}])
def test_a_resume_with_the_same_number_of_processes_is_bitwise(
    world_size: int, saving: dict[str, Any], tmp_path: Path
) -> None:
    act = partial(run, **saving)
    straight = on_ranks(world_size, act, tmp_path / "straight", "fsdp", "straight", 0.3)
    on_ranks(world_size, act, tmp_path / "cut", "fsdp", "crash", 0.3)
    resumed = on_ranks(world_size, act, tmp_path / "cut", "fsdp", "resume", 0.3)
    for ours, theirs in zip(resumed, straight, strict=True):
        assert is_bitwise_equal(ours[0], straight[0][0]) and is_bitwise_equal(theirs[0], straight[0][0])
        assert ours[2] == theirs[2]
    assert (tmp_path / "cut" / "metrics.jsonl").read_bytes() == (tmp_path / "straight" / "metrics.jsonl").read_bytes()
    manifest = verify_checkpoint(tmp_path / "cut" / "checkpoints" / "step_00000010")
    assert manifest.shards == manifest.world_size == world_size


def metrics_in(run_dir: Path) -> dict[tuple[int, str], float]:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return {(line["step"], line["name"]): line["value"] for line in lines}


PAIRS = [
    ("fsdp", 2, "fsdp", 3), ("fsdp", 3, "fsdp", 2), ("fsdp", 4, "fsdp", 2), ("fsdp", 2, "fsdp", 4),
    ("fsdp", 4, "ddp", 1), ("ddp", 1, "fsdp", 4), ("fsdp", 2, "ddp", 3), ("ddp", 3, "fsdp", 2),
    ("fsdp", 2, "ddp", 1), ("ddp", 1, "fsdp", 3),
]  # fmt: skip


@pytest.mark.parametrize(("strategy", "before", "other", "after"), PAIRS)
def test_another_number_of_processes_resumes_a_run(
    strategy: str, before: int, other: str, after: int, tmp_path: Path
) -> None:
    straight = on_ranks(1, run, tmp_path / "straight", "ddp")[0]
    on_ranks(before, run, tmp_path / "cut", strategy, "crash")
    resumed = on_ranks(after, run, tmp_path / "cut", other, "resume")
    for weights, _, validated in resumed:
        assert largest_difference(weights, straight[0]) < 1e-10
        assert validated == pytest.approx(straight[2], rel=1e-10)
    assert metrics_in(tmp_path / "cut") == pytest.approx(metrics_in(tmp_path / "straight"), rel=1e-10)
