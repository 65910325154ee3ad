"""`TrainerView`: the read-only properties of a trainer, and methods that look up its callbacks."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, SupportsIndex, TypeVar

import torch
from torch import nn
from torch.optim import Optimizer

from loopwright.checkpoint import Checkpointing, plain_names, plain_parameters, weights_digest
from loopwright.engine.gathering import gather_values
from loopwright.engine.parts import Parts
from loopwright.hooks import Callback, Logger
from loopwright.loop import LoopCallback
from loopwright.plan import Plan
from loopwright.precision import Precision
from loopwright.run_state import Best
from loopwright.trainer.fit import Fitting
from loopwright.trainer.listeners import Listeners
from loopwright.trainer.measures import Measures
from loopwright.trainer.model_lines import model_lines

_Kind = TypeVar("_Kind", bound=Callback)


class TrainerView:
    """Abstract base class of `Trainer` with the properties that callbacks can read. `Trainer` sets the attributes."""

    _loop: LoopCallback
    _checkpoint: Checkpointing | None
    _run_dir: Path | None
    _parts: Parts
    _listeners: Listeners
    _fitting: Fitting

    @property
    def model(self) -> nn.Module:
        """The model, on its device."""
        return self._parts.model

    @property
    def device(self) -> torch.device:
        """The device on which the model runs."""
        return self._parts.device.torch_device

    @property
    def measures(self) -> Measures:
        """Measurements of the current or last fit: training time, samples, memory and FLOPs."""
        return Measures(self._parts, self._fitting.feed)

    @property
    def model_lines(self) -> str:
        """One line with the class and the number of parameters of the model, and one line with the device."""
        return model_lines(self.model, self.optimizer, self._parts.device, self.precision)

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The parameters of the model by their names in checkpoints. A tied parameter is listed under all its names."""
        return plain_parameters(self._parts.model)

    @property
    def optimizer(self) -> Optimizer | None:
        """The optimizer; None if the trainer has none."""
        return self._parts.optimizer

    @property
    def schedulers(self) -> list[Any]:
        """The schedulers. Schedulers with a monitored metric come last. The list is empty before the first fit."""
        return [*self._parts.schedulers, *(scheduler for scheduler, _ in self._parts.monitored)]

    @property
    def loop(self) -> LoopCallback:
        """The loop of the trainer."""
        return self._loop

    @property
    def global_step(self) -> int:
        """Number of steps completed since the beginning of the run, across resumes."""
        return self._parts.state.global_step

    @property
    def micro_batch_index(self) -> int:
        """Index of the next micro-batch in the current pass over the training dataloader."""
        return self._parts.state.micro_batch_index

    @property
    def plan(self) -> Plan | None:
        """The plan of the current or last fit; None before the first fit. For a resumed fit: the remaining stages."""
        return self._fitting.plan

    @property
    def run_dir(self) -> Path | None:
        """The run directory; None if the trainer has no run directory."""
        return self._run_dir

    @property
    def callbacks(self) -> tuple[Callback, ...]:
        """The callbacks, in order."""
        return self._listeners.callbacks

    @property
    def named_callbacks(self) -> Mapping[str, Callback]:
        """The callbacks by name. The name is the key in a mapping of callbacks, or the name of the class in a list."""
        return self._listeners.named_callbacks

    @property
    def loggers(self) -> tuple[Logger, ...]:
        """The loggers, in order."""
        return self._listeners.loggers

    @property
    def log_every_n_steps(self) -> int:
        """Number of steps from one log of training metrics to the next."""
        return self._parts.log_every_n_steps

    @property
    def is_log_step(self) -> bool:
        """Whether training metrics are logged at the end of the current step."""
        return self._parts.state.is_log_step

    @property
    def seed(self) -> int:
        """The seed of the random streams."""
        return self._parts.streams.seed

    @property
    def metrics(self) -> Mapping[str, float]:
        """The last value of each metric, by name."""
        return dict(self._parts.log.latest)

    @property
    def best(self) -> Best | None:
        """The best value of the monitored metric so far; None if no value except NaN was logged."""
        return self._parts.log.best

    @property
    def stop_reason(self) -> str | None:
        """The reason for the stop of the current or last fit; None if the fit was not stopped."""
        return self._parts.stopping.reason

    @property
    def stopped_by(self) -> str | None:
        """Name of the callback that stopped the current or last fit; None if no callback stopped it."""
        return self._parts.stopping.by

    @property
    def is_interrupted(self) -> bool:
        """Whether the current or last fit ends early, such as after a signal, and a later process will resume it."""
        return self._parts.state.is_interrupted

    @property
    def validation_name(self) -> str | None:
        """Prefix of the metrics of the validation in progress, such as ``val/0``; None outside a validation."""
        return self._parts.state.validation_name

    @property
    def validation_checkpoint(self) -> Path | None:
        """The checkpoint that is being validated; None outside a validation, and for the weights in memory."""
        return self._parts.state.validation_checkpoint

    @property
    def precision(self) -> Precision:
        """The settings of dtypes, gradient clipping and loss scaling."""
        return self._parts.precision

    @property
    def checkpoint(self) -> Checkpointing | None:
        """The settings for saving checkpoints; None: a fit saves no checkpoints."""
        return self._checkpoint

    @property
    def logger(self) -> logging.Logger:
        """The ``logging.Logger`` for messages. The property `loggers` has the objects that record metrics."""
        return logging.getLogger("loopwright")

    @property
    def is_padding(self) -> bool:
        """Whether the current micro-batch has no row for this process, which computes another row with weight 0.

        A process that has not read any batch yet computes nothing. Its hook `on_train_batch_end` then gets the batch
        None and no outputs.
        """
        return self._parts.state.is_padding

    @property
    def rank(self) -> int:
        """Index of this process among the processes that train together, from 0."""
        return self._parts.strategy.ranks.rank

    @property
    def world_size(self) -> int:
        """Number of processes that train together."""
        return self._parts.strategy.ranks.world_size

    @property
    def is_sharded(self) -> bool:
        """Whether each process stores only a part of each weight."""
        return self._parts.strategy.is_sharded

    def weights_digest(self) -> str:
        """Return the SHA-256 of all weights, which does not depend on the number of processes.

        Every process must call this method if the model is sharded. Only the result in process 0 is a digest of all
        weights.
        """
        strategy = self._parts.strategy
        return weights_digest(plain_names(self._parts.model), strategy.whole if strategy.is_sharded else None)

    @property
    def is_first_iteration(self) -> bool:
        """Whether the current batch is the first batch of its train loop, or of its validation."""
        return self._parts.state.batch_idx == 0

    @property
    def is_final_iteration(self) -> bool:
        """Whether the current batch is the last planned batch of its train loop, or of its validation.

        If a dataloader of unknown length ends before the planned end, no batch is the last planned batch.
        """
        state, plan = self._parts.state, self._fitting.plan
        if state.batch_idx is None:
            return False
        if state.num_val_batches is not None:
            return state.batch_idx + 1 == state.num_val_batches
        step = state.global_step + state.is_inside_window  # the current step, which its last hooks count as completed
        return state.is_last_micro_batch and plan is not None and plan.ends_train_loop(step)

    @property
    def should_run_optimizer_step(self) -> bool:
        """Whether the current micro-batch is the last of its step. The update follows the last micro-batch."""
        return self._parts.state.is_last_micro_batch

    def sum_over_processes(self, values: Mapping[str, float]) -> dict[str, float]:
        """Return the sum of each value over the processes that train together. Waits for the other processes.

        Every process must call this method the same number of times, in the same order, and gets the same result. A
        process that lacks a name adds 0. NaN and infinite values are allowed. With one process, the result contains
        the same values.

        Raises:
            PeerError: if another process has ended.
        """
        sums: dict[str, float] = {}
        for each in self._gather(values):
            for name, value in each.items():
                sums[name] = sums.get(name, 0.0) + value
        return sums

    def max_over_processes(self, values: Mapping[str, float]) -> dict[str, float]:
        """Return the largest of each value over the processes that train together. Call it like `sum_over_processes`.

        A process that lacks a name is left out.

        Raises:
            PeerError: if another process has ended.
        """
        largest: dict[str, float] = {}
        for each in self._gather(values):
            for name, value in each.items():
                largest[name] = max(largest.get(name, value), value)
        return largest

    def _gather(self, values: Mapping[str, float]) -> list[dict[str, float]]:
        return gather_values(self._parts.strategy.ranks, {name: float(value) for name, value in values.items()})

    def get_callbacks(self, kind: type[_Kind]) -> tuple[_Kind, ...]:
        """Return the callbacks and loggers of the class ``kind`` or its subclasses, in order."""
        return tuple(each for each in (*self.callbacks, *self.loggers) if isinstance(each, kind))

    def get_callback(self, kind: type[_Kind]) -> _Kind | None:
        """Return the first callback or logger of the class ``kind`` or its subclasses; None: no such object."""
        return next(iter(self.get_callbacks(kind)), None)

    def __repr__(self) -> str:
        """Return the main settings and the step on one line."""
        optimizer = None if self.optimizer is None else type(self.optimizer).__name__
        run_dir = None if self._run_dir is None else str(self._run_dir)
        return (
            f"{type(self).__name__}(model={type(self.model).__name__}, optimizer={optimizer}, loop={self._loop!r}, "
            f"device={str(self.device)!r}, run_dir={run_dir!r}, global_step={self.global_step})"
        )

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Refuse to copy or pickle the trainer, because a copy would share its files, workers and random streams.

        Raises:
            TypeError: always. The message names the objects that can be copied instead.
        """
        raise TypeError(
            "A Trainer cannot be copied or pickled. Copy or pickle trainer.model instead (a model that refers to its "
            "trainer must drop that attribute first); for a second trainer, build it with the same arguments and "
            "give it a checkpoint of trainer.save_checkpoint(path): fit(…, ckpt_path=path)."
        )
