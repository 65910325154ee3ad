"""`Trainer`: a model, an optimizer, a loop, and what listens to them; it fits, validates, saves and loads.

A facade: the plan says what is done, the engine does it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from loopwright.checkpoint import Checkpointing, expand, plain_parameters
from loopwright.device import Device, Single, open_device
from loopwright.engine.hook_table import call_hooks, close_all
from loopwright.engine.metric_log import MetricLog
from loopwright.engine.parts import Parts
from loopwright.engine.stopping import Stopping
from loopwright.errors import SettingError, check_count, refuse_type
from loopwright.hooks import Callback, Logger
from loopwright.loop import LoopCallback, ValidationLoop
from loopwright.plan import Plan
from loopwright.precision import Precision
from loopwright.run_state import Best, FitResult, RunState
from loopwright.seeding import RandomStreams
from loopwright.trainer import arguments
from loopwright.trainer.fit import Fitting
from loopwright.trainer.listeners import Listeners
from loopwright.trainer.resume import find_run, save_run
from loopwright.trainer.save import RunSaver, read_for_fit
from loopwright.trainer.validate import ValidationRow, open_val_sets, validate_checkpoints, validate_sets, weights_of


class Trainer:
    """Fits and validates a model.

    ::

        on_enter_fit; load what was asked for; plan; on_fit_start
        for each stage of the plan: train steps, save, validate      (engine/fit.py)
        on_fit_end

    Args:
        model: a module, or a callable that makes one under the trainer's random streams. ``model(batch)`` returns the
            loss, a scalar, or a mapping with ``loss`` (a mean over the micro-batch's items), ``num_items`` where items
            are not simply samples, and any scalars to be averaged and logged beside it.
        optimizer: a callable of the parameters, or an instance over the parameters of the module given. A callable
            with a parameter ``named_parameters`` is given pairs of name and parameter, to group them by name.
        schedulers: callables of the optimizer, stepped once per step; one with a parameter ``total_steps`` is told the
            plan's. ``{"scheduler": …, "monitor": metric}`` is stepped with that metric after each validation.
        loop: a `TrainingLoop`, by default of one epoch, or a `ValidationLoop`.
        device: "auto", "cpu", "gpu", "mps", a torch device, or a `Device`.
        precision: by default float32 without clipping.
        checkpoint: when to save; needs ``run_dir``.
        callbacks: a list, or a mapping whose names key their state.
        loggers: likewise.
        log_every_n_steps: steps between two readings of training values; the last step of a fit is read too.
        seed: of the trainer's random streams, which are its own; None: drawn, and recorded as `seed`.
        run_dir: where checkpoints and loggers write; without it nothing is written.

    Raises:
        SettingError: for settings that cannot be used.
    """

    def __init__(
        self,
        model: nn.Module | Callable[[], nn.Module],
        optimizer: Optimizer | Callable[..., Optimizer] | None = None,
        schedulers: Any = None,
        loop: LoopCallback | None = None,
        device: str | torch.device | Device = "auto",
        precision: Precision | None = None,
        checkpoint: Checkpointing | None = None,
        callbacks: Sequence[Callback] | Mapping[str, Callback] | None = None,
        loggers: Sequence[Logger] | Mapping[str, Logger] | None = None,
        log_every_n_steps: int = 50,
        seed: int | None = 0,
        run_dir: str | Path | None = None,
    ) -> None:
        self._loop = arguments.check_loop(loop)
        self._checkpoint = arguments.check_checkpoint(checkpoint, run_dir)
        self._run_dir = None if run_dir is None else Path(run_dir)
        self._saver: RunSaver | None = None
        self._listeners = Listeners(self._loop, callbacks, loggers, self._checkpoint)
        specs = arguments.read_schedulers(schedulers)
        accelerator = open_device(device)
        streams = RandomStreams(arguments.check_seed(seed), accelerator.stream)
        with streams.active():
            module = arguments.build_model(model)
            settings = arguments.check_precision(precision)
            strategy = Single()
            strategy.set_up(module, accelerator, settings)
            state = RunState()
            self._parts = Parts(
                trainer=self,
                model=module,
                optimizer=arguments.build_optimizer(optimizer, module, is_given_model=model is module),
                device=accelerator,
                precision=settings,
                streams=streams,
                state=state,
                log=MetricLog(checkpoint.monitor, checkpoint.mode) if checkpoint is not None else MetricLog(),
                log_every_n_steps=check_count("log_every_n_steps", log_every_n_steps),
                callbacks=self._listeners.named(),
                strategy=strategy,
                stopping=Stopping(state),
            )
            if checkpoint is not None and self._run_dir is not None:
                self._saver = RunSaver(self._parts, checkpoint, self._run_dir)
            self._fitting = Fitting(self._parts, self._checkpoint, specs, self._saver)
            self._is_closed = False
            self._set_up()

    @property
    def model(self) -> nn.Module:
        """The model, on its device."""
        return self._parts.model

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The model's parameters by plain names, those that checkpoints use; a tied one under each of its names."""
        return plain_parameters(self._parts.model)

    @property
    def optimizer(self) -> Optimizer | None:
        """The optimizer, where one was given."""
        return self._parts.optimizer

    @property
    def schedulers(self) -> list[Any]:
        """The schedulers, those with a monitor last; made by the first fit, as they may ask for its length."""
        return [*self._parts.schedulers, *(scheduler for scheduler, _ in self._parts.monitored)]

    @property
    def loop(self) -> LoopCallback:
        """The loop given."""
        return self._loop

    @property
    def global_step(self) -> int:
        """Steps completed since the run began, across resumes."""
        return self._parts.state.global_step

    @property
    def micro_batch_index(self) -> int:
        """The micro-batch of the present pass that is read next."""
        return self._parts.state.micro_batch_index

    @property
    def plan(self) -> Plan | None:
        """The plan of the present or last fit; after a resume, the rest of the run's."""
        return self._fitting.plan

    @property
    def run_dir(self) -> Path | None:
        """Where this run writes, if anywhere."""
        return self._run_dir

    @property
    def callbacks(self) -> tuple[Callback, ...]:
        """The callbacks given, in order."""
        return self._listeners.callbacks

    @property
    def loggers(self) -> tuple[Logger, ...]:
        """The loggers given, in order."""
        return self._listeners.loggers

    @property
    def log_every_n_steps(self) -> int:
        """Steps between two readings of training values."""
        return self._parts.log_every_n_steps

    @property
    def is_log_step(self) -> bool:
        """Whether the training values of the present step are read and logged."""
        return self._parts.state.is_log_step

    @property
    def seed(self) -> int:
        """What the random streams of this run were seeded with."""
        return self._parts.streams.seed

    @property
    def metrics(self) -> Mapping[str, float]:
        """The last value of each metric, by name."""
        return dict(self._parts.log.latest)

    @property
    def best(self) -> Best | None:
        """The best value of the monitored metric so far."""
        return self._parts.log.best

    @property
    def stop_reason(self) -> str | None:
        """Why the present or last fit was stopped, if it was."""
        return self._parts.stopping.reason

    @property
    def validation_name(self) -> str | None:
        """The validation set being validated, ``val``, ``val/0`` or ``val/<name>``, as its metrics begin; or None."""
        return self._parts.state.validation_name

    @property
    def validation_checkpoint(self) -> Path | None:
        """The checkpoint whose weights are being validated; None: none, or those of the run itself are."""
        return self._parts.state.validation_checkpoint

    def plan_fit(self, train_dataloader: Any, val_dataloader: Any = None) -> Plan:
        """The plan that `fit` would carry out now; nothing is run.

        Raises:
            SettingError: as `fit`.
        """
        return self._fitting.plan_next(arguments.training_loop(self._loop), train_dataloader, val_dataloader)

    def fit(
        self,
        train_dataloader: Any,
        val_dataloader: Any = None,
        ckpt_path: str | Path | None = None,
        init_from: str | Path | None = None,
    ) -> FitResult:
        """Train by the loop's settings, and validate in between.

        A later fit goes on where the last one ended: the same dataloader inside its pass, another with a new pass.

        Args:
            train_dataloader: any iterable of micro-batches.
            val_dataloader: one, a list, or a mapping from names.
            ckpt_path: resume from a checkpoint, a run directory (its newest good checkpoint), "last" or "best"; the
                plan of the run that it belongs to is kept.
            init_from: load only the weights of a checkpoint, and begin at step 0.

        In the main thread SIGINT, SIGTERM and SIGUSR1 end the fit after its step, which is saved first; a second
        one ends it at once.

        Raises:
            TypeError: if the loop is no `TrainingLoop`.
            SettingError: if the settings do not fit the data, or there is no optimizer.
            CheckpointError: if a checkpoint cannot be used.
            SaveError: if one cannot be written, unless the fit is to go on.
            KeyboardInterrupt: after SIGINT.
            SystemExit: with code 143, after SIGTERM and SIGUSR1.
        """
        self._check_open()
        loop = arguments.training_loop(self._loop)
        if self._parts.optimizer is None:
            raise SettingError("optimizer", "=null: expected an optimizer, to fit with.")
        arguments.check_start(ckpt_path, init_from, self.global_step)
        self._parts.hooks = self._listeners.bind(loop.val_loop)
        if self._saver is not None:
            self._saver.prepare()
        load = partial(read_for_fit, self._parts, self._run_dir, self._saver, ckpt_path, init_from)
        return self._fitting.run(loop, train_dataloader, val_dataloader, load, resumes=ckpt_path is not None)

    def validate(
        self, val_dataloader: Any, ckpt_path: str | Path | None = None, loop: LoopCallback | None = None
    ) -> dict[str, float]:
        """Validate on one dataloader, a list or a mapping of them.

        Args:
            val_dataloader: read from its beginning.
            ckpt_path: validate the weights of a checkpoint, which are given back afterwards; None: those in memory.
            loop: in place of the trainer's own.

        Returns:
            The averages by name, such as ``val/loss``.

        Raises:
            SettingError: if a dataloader of unknown length is to be validated as a whole.
            CheckpointError: if the checkpoint cannot be used.
        """
        chosen = arguments.validation_loop(loop, self._loop)
        val_sets = open_val_sets(val_dataloader, self.seed, self._parts.state.downstream_name or "val")
        if not val_sets:
            raise refuse_type("val_dataloader", val_dataloader, "a dataloader, or a list or mapping of them")
        parts = self._bound_for(chosen)
        with ExitStack() as stack:
            stack.enter_context(parts.streams.active())
            if ckpt_path is not None:
                self._finish_saving()
                stack.enter_context(weights_of(parts, find_run(parts, ckpt_path, self._run_dir)))
            results = validate_sets(parts, chosen, val_sets)
        return {name: value for metrics in results.values() for name, value in metrics.items()}

    def validate_all(
        self,
        val_dataloaders: Any,
        ckpt_paths: str | Path | Sequence[str | Path] | None = None,
        loop: LoopCallback | None = None,
    ) -> list[ValidationRow]:
        """Validate every dataloader on every checkpoint, and run the downstream validations on each.

        Args:
            val_dataloaders: one, a list or a mapping.
            ckpt_paths: paths or patterns, taken in the order of their steps; None: the weights in memory.
            loop: in place of the trainer's own.

        Returns:
            A row for each checkpoint and dataloader or downstream validation. Weights in memory are as before.

        Raises:
            CheckpointError: if a pattern matches nothing, or a checkpoint cannot be used.
        """
        chosen = arguments.validation_loop(loop, self._loop)
        parts = self._bound_for(chosen)
        if ckpt_paths is not None:
            self._finish_saving()
        folders: list[Path | None] = [None] if ckpt_paths is None else [*expand(ckpt_paths)]
        with parts.streams.active():
            return validate_checkpoints(parts, chosen, val_dataloaders, folders)

    def save_checkpoint(self, path: str | Path) -> Path:
        """Save the run as the checkpoint folder ``path``, and return it.

        Raises:
            RuntimeError: inside a step; the end of one is when ``on_train_batch_end`` sees a new ``global_step``.
            SaveError: if it cannot be written.
        """
        self._check_open()
        self._finish_saving()
        return save_run(self._parts, Path(path), self._fitting.plan)

    def stop(self, reason: str, *, is_interruption: bool = False) -> None:
        """End the present fit after this step: it saves, and returns normally. Outside a fit nothing happens.

        Args:
            reason: said to the user.
            is_interruption: the run is to be resumed: its state is "interrupted", and a validation that is under way
                is cut short, to be begun again.
        """
        if self._fitting.is_running:
            self._parts.stopping.ask(reason, is_interruption=is_interruption)

    def log_metrics(self, **values: Tensor | float) -> None:
        """Hand values to the loggers at once, for the present step; reading a tensor waits for its device."""
        self._parts.log.log(values, self.global_step)

    def close(self) -> None:
        """Let a save end, then finalize callbacks and loggers, once; where one raises the others are still called."""
        self._close(None)

    def _close(self, ended_by: BaseException | None) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        try:
            close_all((partial(self._fitting.end_saving, ended_by), *self._parts.hooks["finalize"]), ended_by)
        finally:  # otherwise trainer and parts keep each other, and so the model, until garbage is collected
            self._fitting.close()
            self._parts.trainer, self._parts.hooks = None, {}

    def __enter__(self) -> Self:
        """The trainer itself; it is closed at the end of the block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close the trainer; an exception that ends the block goes on, whatever is raised now."""
        self._close(error)

    def _set_up(self) -> None:
        parts = self._parts
        val_loop = arguments.validation_loop(None, self._loop)
        self._listeners.warn_of_misspelt_hooks(val_loop)
        parts.hooks = self._listeners.bind(val_loop)
        parts.log.connect(*self._listeners.bind_loggers())
        try:
            for hook in ("pre_setup", "setup", "post_setup"):
                call_hooks(parts.hooks[hook], self)
            self._listeners.check_states()
        except BaseException as error:
            close_all(parts.hooks["finalize"], error)
            raise

    def _bound_for(self, loop: ValidationLoop) -> Parts:
        """The parts with the hooks of ``loop`` bound; those of a fit that is running stay as they are."""
        self._check_open()
        hooks = self._listeners.bind(loop)
        self._listeners.warn_if_unheard(loop, hooks)
        return replace(self._parts, hooks=hooks)

    def _finish_saving(self) -> None:
        if self._saver is not None:
            self._saver.settle()

    def _check_open(self) -> None:
        if self._is_closed:
            raise RuntimeError("This trainer is closed; make another.")
