"""`Parts`: what a run is made of, as the engine needs it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.optim import Optimizer

from loopwright.engine.hook_table import Hooks
from loopwright.engine.metric_log import MetricLog
from loopwright.engine.stopping import Stopping
from loopwright.hooks import Callback
from loopwright.precision import Precision, Scaling
from loopwright.protocols import Accelerator, BatchSource, StatefulScheduler, Strategy
from loopwright.run_state import RunState
from loopwright.seeding import RandomStreams


@dataclass(slots=True, kw_only=True)
class Parts:
    """The objects that every loop of the engine works on.

    Attributes:
        trainer: handed to hooks, never looked into.
        model: on its device.
        optimizer: None where nothing can be trained.
        schedulers: stepped once per step.
        monitored: (scheduler, metric): stepped after each round of validations.
        log_every_n_steps: steps between two readings of training values.
        data: the training dataloader of the present or last fit, whose state is saved where it has one.
        callbacks: (name, callback) in the order in which they are called.
        hooks: those of the callbacks, bound for this run.
        strategy: places and calls the model.
        scaling: scales the loss; None: losses and gradients are used as they are.
        stopping: decides where a fit ends before its plan does.
    """

    trainer: Any
    model: nn.Module
    optimizer: Optimizer | None
    device: Accelerator
    precision: Precision
    streams: RandomStreams
    state: RunState
    log: MetricLog
    log_every_n_steps: int
    strategy: Strategy
    stopping: Stopping
    scaling: Scaling | None = None
    schedulers: list[StatefulScheduler] = field(default_factory=list)
    monitored: list[tuple[StatefulScheduler, str]] = field(default_factory=list)
    data: BatchSource | None = None
    callbacks: list[tuple[str, Callback]] = field(default_factory=list)
    hooks: Hooks = field(default_factory=dict)
