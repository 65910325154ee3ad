"""Functions that open the device, join the processes of a run, and build objects for the number of processes."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from loopwright.checkpoint import Checkpointing
from loopwright.device import Device, make_strategy, open_device, read_world
from loopwright.engine.agreement import Agreement
from loopwright.engine.metric_log import MetricLog
from loopwright.engine.parts import Parts
from loopwright.engine.stopping import Stopping
from loopwright.protocols import Accelerator, Ranks, Strategy
from loopwright.trainer.ranked_saving import RankedSaver, Saver
from loopwright.trainer.save import RunSaver


def join_processes(device: str | torch.device | Device) -> tuple[Accelerator, Strategy]:
    """Open the device of this process, and join the processes that a launcher such as torchrun has started.

    Args:
        device: argument ``device`` of the trainer.

    Raises:
        SettingError: if the device is not available, or if ``num_processes`` is not the number of started processes.
        PeerError: if this process cannot join the other processes.
    """
    world = read_world(os.environ)
    accelerator = open_device(device, world.local_rank if world.world_size > 1 else None)
    settings = device if isinstance(device, Device) else Device()
    return accelerator, make_strategy(settings, world, accelerator.torch_device.type)


def make_agreement(strategy: Strategy, stopping: Stopping, device: Accelerator) -> Agreement | None:
    """Return the object that sums values over the processes of a run; None if there is one process."""
    if strategy.ranks.world_size == 1:
        return None
    return Agreement(strategy.ranks, stopping, device.torch_device, device.sum_dtype)


def make_log(checkpoint: Checkpointing | None, ranks: Ranks) -> MetricLog:
    """Return the object that passes metrics to the loggers, and keeps the best value of the monitored metric."""
    return MetricLog(ranks=ranks) if checkpoint is None else MetricLog(checkpoint.monitor, checkpoint.mode, ranks)


def make_saver(parts: Parts, checkpoint: Checkpointing | None, run_dir: Path | None) -> Saver | None:
    """Return the object that saves the checkpoints of a run; None if the run saves none."""
    if checkpoint is None or run_dir is None:
        return None
    ranks = parts.strategy.ranks
    saver = None if ranks.rank else RunSaver(parts, checkpoint, run_dir)
    return saver if saver is not None and ranks.world_size == 1 else RankedSaver(parts, saver, checkpoint)
