"""`Parts`: model, optimizer, device, hooks and other objects of a run that the engine uses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.optim import Optimizer

from loopwright.engine.agreement import Agreement
from loopwright.engine.clock import TrainClock
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
    """Model, optimizer, device, hooks and other objects of a run, which the modules of the engine share.

    Attributes:
        trainer: trainer object, which the engine only passes to hooks.
        model: model, on its device.
        optimizer: optimizer of the model; None: the model can only be validated.
        schedulers: schedulers that are advanced after each update.
        monitored: pairs of scheduler and metric name. After each round of validations, the scheduler is stepped with
            the value of the metric.
        log_every_n_steps: number of steps from one log of training metrics to the next.
        data: source of the training micro-batches in the current or last fit. Checkpoints contain the state of the
            source, if the source has a state.
        callbacks: pairs of name and callback, in the order in which they are called.
        hooks: bound methods of the callbacks, by name of the hook.
        has_auto_device: whether the device was chosen by "auto".
        strategy: object that places the model on its device, and calls the model.
        scaling: object that scales the loss; None: the loss is not scaled.
        stopping: object that decides whether a fit ends before the end of its plan.
        clock: time spent in training in the current or last fit.
        agreement: object that sums values over several processes; None: there is one process.
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
    agreement: Agreement | None = None
    has_auto_device: bool = False
    scaling: Scaling | None = None
    schedulers: list[StatefulScheduler] = field(default_factory=list)
    monitored: list[tuple[StatefulScheduler, str]] = field(default_factory=list)
    data: BatchSource | None = None
    callbacks: list[tuple[str, Callback]] = field(default_factory=list)
    hooks: Hooks = field(default_factory=dict)
    clock: TrainClock = field(default_factory=TrainClock)
