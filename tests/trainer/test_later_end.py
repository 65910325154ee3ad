"""A resume with a later end says how the schedules change."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import OneCycleLR, StepLR

from loopwright import Checkpointing, TrainingLoop
from loopwright.optim import constant, warmup_cosine
from tiny import batches, trainer

UP = "warmup_cosine now ends at step 8: the learning rate goes back up from 0.01 to 0.055."


@pytest.mark.parametrize(
    ("scheduler", "stop_at", "said"),
    [
        (functools.partial(warmup_cosine, final_fraction=0.1), None, [UP]),
        (functools.partial(functools.partial(warmup_cosine, final_fraction=0.1)), None, [UP]),
        (
            functools.partial(warmup_cosine, warmup_steps=0.5),
            1,
            ["warmup_cosine now ends at step 8: the learning rate goes down from 0.0667 to 0.04."],
        ),
        (constant, None, ["constant now ends at step 8 instead of 4."]),
        (functools.partial(OneCycleLR, max_lr=0.1), None, ["OneCycleLR now ends at step 8 instead of 4."]),
        (functools.partial(StepLR, step_size=2), None, []),
        (functools.partial(warmup_cosine, total_steps=4), None, []),
    ],
)
def test_a_later_end_is_said_once_for_each_schedule_that_depends_on_it(
    scheduler: Any, stop_at: int | None, said: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sgd = functools.partial(torch.optim.SGD, lr=0.1)

    def build(max_steps: int) -> Any:
        settings: dict[str, Any] = {"checkpoint": Checkpointing(every_n_steps=1), "run_dir": tmp_path}
        return trainer(TrainingLoop(max_steps=max_steps), optimizer=sgd, schedulers=[scheduler], **settings)

    build(4).fit(batches(8))
    start = tmp_path / "checkpoints" / f"step_{stop_at or 4:08}"
    build(4).fit(batches(8), ckpt_path=start)
    assert not [record for record in caplog.records if "now ends" in record.getMessage()]
    build(8).fit(batches(8), ckpt_path=start)
    warned = [record for record in caplog.records if "now ends" in record.getMessage()]
    assert [record.getMessage() for record in warned] == said
    assert {record.levelno for record in warned} <= {logging.WARNING}
