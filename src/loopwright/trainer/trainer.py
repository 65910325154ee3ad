"""`Trainer`: fits and validates a model, saves and loads checkpoints, and calls callbacks and loggers.

The trainer contains no training loop: `loopwright.plan` computes a plan, and `loopwright.engine` carries out the plan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from loopwright.checkpoint import Checkpointing, expand, step_folder
from loopwright.device import Device, is_auto
from loopwright.engine.hook_table import close_all
from loopwright.engine.parts import Parts
from loopwright.engine.predict import Array, predict
from loopwright.engine.stopping import Stopping
from loopwright.errors import SettingError, check_count, refuse_type
from loopwright.hooks import Callback, Logger
from loopwright.loop import LoopCallback, ValidationLoop
from loopwright.plan import Plan
from loopwright.precision import Precision
from loopwright.run_state import FitResult, RunState
from loopwright.seeding import RandomStreams, derive, holding_streams
from loopwright.trainer import arguments
from loopwright.trainer.fit import Fitting
from loopwright.trainer.listeners import Listeners
from loopwright.trainer.processes import join_processes, make_agreement, make_log, make_saver
from loopwright.trainer.resume import save_run
from loopwright.trainer.run_directory import held_for_fit, make_run_dir
from loopwright.trainer.start import Start, read_start
from loopwright.trainer.validate import (
    ValidationRow,
    chosen_weights,
    open_set_in_order,
    open_val_sets,
    validate_checkpoints,
    validate_sets,
)
from loopwright.trainer.view import TrainerView


class Trainer(TrainerView):
    """Fits and validates a model.

    ::

        on_enter_fit; load the given checkpoint; compute the plan; on_fit_start
        for each stage of the plan: train steps, save, validate      (engine/fit.py)
        on_fit_end

    Args:
        model: a module, or a callable that returns a module. The callable uses the random streams of the trainer. The
            module takes a batch, and returns the loss as a scalar tensor, or a mapping with ``loss``, ``num_items`` and
            other scalars to log. The loss is a mean over ``num_items`` items (default: the samples of the batch).
        optimizer: a callable that takes the parameters and returns an optimizer. If ``model`` is a module, an optimizer
            of its parameters is also accepted. A callable with ``named_parameters`` gets pairs of name and parameter.
        schedulers: callables that take the optimizer and return a scheduler, which is stepped after each training step.
            ``total_steps`` and ``steps_per_epoch`` of a callable are set to the steps of the plan and of an epoch. The
            scheduler in ``{"scheduler": callable, "monitor": metric}`` is stepped with the metric after validations.
        loop: a `TrainingLoop` or a `ValidationLoop`; by default a `TrainingLoop` of one epoch.
        device: "auto", "cpu", "gpu", "xpu", "mps", a torch device, or a `Device`, which has further settings.
        precision: a `Precision`, or a dtype: "float32" (the default), "bf16", "fp16" or "bf16_pure".
        checkpoint: settings for saving checkpoints in ``run_dir``; None: a fit saves no checkpoints.
        callbacks: a list, or a mapping from names to callbacks. A checkpoint stores a callback's state under its name.
        loggers: a list, or a mapping from names to loggers. A checkpoint stores a logger's state under its name. None:
            a `ProgressLogger` in a terminal or a notebook, and otherwise no logger.
        log_every_n_steps: steps from one log of training metrics to the next. The last step of a fit is also logged.
            The metrics are means over all micro-batches since the last log, weighted by their numbers of items.
        seed: seed of the random streams of the trainer. None: a random seed, which the property `seed` returns.
        run_dir: directory for the checkpoints and logger files of this run, which is created; None: no directory, and a
            fit saves no checkpoints.

    Raises:
        SettingError: if a setting is invalid.
    """

    def __init__(
        self,
        model: nn.Module | Callable[[], nn.Module],
        optimizer: Optimizer | Callable[..., Optimizer] | None = None,
        schedulers: Any = None,
        loop: LoopCallback | None = None,
        device: str | torch.device | Device = "auto",
        precision: Precision | str | None = None,
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
        accelerator, strategy = join_processes(device)
        ranks = strategy.ranks
        self._listeners = Listeners(self._loop, callbacks, () if ranks.rank else loggers, self._checkpoint)
        specs = arguments.read_schedulers(schedulers)
        streams = RandomStreams(arguments.check_seed(seed, ranks), accelerator.stream)
        with streams.active():
            module = arguments.build_model(model)
            settings = arguments.check_precision(precision)
            strategy.set_up(module, accelerator, settings)
            state = RunState()
            stopping = Stopping(state, ranks)
            self._parts = Parts(
                trainer=self,
                model=module,
                optimizer=arguments.build_optimizer(optimizer, module, is_given_model=model is module),
                device=accelerator,
                precision=settings,
                scaling=settings.make_scaling(accelerator.torch_device.type),
                streams=streams,
                state=state,
                log=make_log(checkpoint, ranks),
                log_every_n_steps=check_count("log_every_n_steps", log_every_n_steps),
                callbacks=self._listeners.named(),
                strategy=strategy,
                stopping=stopping,
                agreement=make_agreement(strategy, stopping, accelerator),
                has_auto_device=is_auto(device),
            )
            self._saver = make_saver(self._parts, checkpoint, self._run_dir)
            self._fitting = Fitting(self._parts, self._checkpoint, specs, self._saver)
            self._is_closed = False
            self._scopes: list[str] = []
            if self._run_dir is not None and not ranks.rank:
                make_run_dir(self._run_dir)
            if ranks.rank:
                streams.reseed(derive(streams.seed, "rank", ranks.rank))
            self._listeners.set_up(self._parts, arguments.validation_loop(None, self._loop))

    def plan_fit(self, train_dataloader: Any, val_dataloader: Any = None) -> Plan:
        """Return the plan that `fit` would carry out now. No step is trained.

        Raises:
            SettingError: if the settings do not fit the data.
        """
        return self._fitting.plan_next(arguments.training_loop(self._loop), train_dataloader, val_dataloader)

    def fit(
        self,
        train_dataloader: Any,
        val_dataloader: Any = None,
        ckpt_path: str | Path | int | None = None,
        init_from: str | Path | None = None,
        *,
        strict: bool = True,
        init_optimizer: bool = False,
    ) -> FitResult:
        """Train and validate the model with the settings of the loop.

        A later fit continues at the step at which the last fit ended. If the dataloader of the last fit is given again,
        its pass also continues. With another dataloader, a new pass starts.

        The run directory is locked during the fit. If the directory contains checkpoints or logged metrics of another
        trainer, the first fit of this trainer must resume the run in the directory.

        In the main thread, SIGINT, SIGTERM and SIGUSR1 stop the fit after the current step. The fit then saves a
        checkpoint, if ``checkpoint`` is set. A second signal stops the fit immediately.

        Args:
            train_dataloader: any iterable of micro-batches.
            val_dataloader: a dataloader, or a list or a mapping of dataloaders.
            ckpt_path: checkpoint to resume from: its path, a run directory (for its newest valid checkpoint), "last",
                "best", or a step of this run. The fit carries out the remaining stages of the saved plan. If no stage
                remains, nothing is trained or validated, and the result contains the recorded metrics.
            init_from: checkpoint whose weights are loaded. The fit starts at step 0.
            strict: whether all weights of ``init_from`` must fit the model. If False, a warning lists unloaded weights.
            init_optimizer: whether the state of the optimizer, without its settings, is also loaded from ``init_from``.

        Raises:
            TypeError: if the loop is not a `TrainingLoop`.
            SettingError: if the settings do not fit the data or the files in ``run_dir``, or without an optimizer.
            CheckpointError: if a checkpoint cannot be used, or another process uses ``run_dir``.
            SaveError: if a checkpoint cannot be written, unless ``checkpoint.on_save_error`` is ``continue``.
            RuntimeError: if another thread of this process is in a fit or a validation.
            KeyboardInterrupt: after SIGINT.
            SystemExit: with code 143, after SIGTERM or SIGUSR1.
        """
        self._check_open()
        loop = arguments.training_loop(self._loop)
        if self._parts.optimizer is None:
            raise SettingError("optimizer", "=null: expected an optimizer, which fit needs.")
        start = Start(ckpt_path, init_from, strict, init_optimizer, self.global_step)
        is_new = not start.resumes and self.plan is None
        own_dir = None if self._parts.strategy.ranks.rank else self._run_dir  # process 0 locks the directory
        # The streams come first, before anything that a fit in another thread uses is changed.
        with holding_streams(), held_for_fit(own_dir, self.loggers, is_new=is_new):
            self._parts.hooks = self._listeners.bind(loop.val_loop)
            if self._saver is not None:
                self._saver.prepare(resumes=start.resumes)
            load = partial(read_start, self._parts, self._run_dir, self._saver, start)
            result = self._fitting.run(loop, train_dataloader, val_dataloader, start, load)
        self._listeners.warn_of_unknown_hooks(has_run=True, stacklevel=3)
        return result

    def validate(
        self, val_dataloader: Any, ckpt_path: str | Path | int | None = None, loop: LoopCallback | None = None
    ) -> dict[str, float]:
        """Validate on one or more dataloaders.

        Args:
            val_dataloader: a dataloader, or a list or a mapping of dataloaders. Each is read from its beginning.
            ckpt_path: checkpoint to validate, as in `fit`; None: the weights in memory. The weights in memory are
                restored after the validation.
            loop: loop of the validation; None: the loop of the trainer.

        Returns:
            The averages, such as ``val/loss``, and other metrics logged during the validation, by name.

        Raises:
            SettingError: if a dataloader is empty, or its length is unknown and ``eval_steps`` is None.
            CheckpointError: if the checkpoint cannot be used.
            RuntimeError: if another thread of this process is in a fit or a validation.
        """
        chosen = arguments.validation_loop(loop, self._loop)
        root = self._parts.state.downstream_name or "val"
        val_sets = open_val_sets(val_dataloader, self.seed, root, self._parts.strategy.ranks)
        if not val_sets:
            raise refuse_type("val_dataloader", val_dataloader, "a dataloader, or a list or mapping of them")
        parts = self._bound_for(chosen)
        with chosen_weights(parts, self._saver, self._run_dir, ckpt_path), parts.log.collecting() as metrics:
            validate_sets(parts, chosen, val_sets, root)
        return metrics

    def predict(self, dataloader: Any, ckpt_path: str | Path | int | None = None) -> dict[str, Array]:
        """Compute the predictions for all samples of a dataloader, in evaluation mode and without gradients.

        A model may have a method ``predict(batch)``, which returns a tensor, or a mapping of tensors, with one row per
        sample. The batch need not contain a target. Without this method, the outputs of ``model(batch)`` with one row
        per sample are returned, except ``loss``.

        A `loopwright.data.Loader`, and a torch dataloader with a sampler of torch, are read in the order of the data
        set, with an incomplete last batch. Other dataloaders are read in their own order. If a callback changes the
        weights for validations, such as to an average, predictions also use these weights.

        Args:
            dataloader: any iterable of batches. It is read once from its beginning.
            ckpt_path: checkpoint to use, as in `fit`; None: the weights in memory. The weights in memory are restored
                after the prediction.

        Returns:
            An array with one row per sample for each name. If ``predict`` returns a tensor, its name is ``prediction``.

        Raises:
            DataError: if the dataloader is empty, or the shapes of two batches differ.
            TypeError: if the model returns no predictions.
            CheckpointError: if the checkpoint cannot be used.
            RuntimeError: if another thread of this process is in a fit or a validation.
        """
        loop = arguments.validation_loop(None, self._loop)
        self._check_open()
        data = open_set_in_order(dataloader, self.seed)
        parts = replace(self._parts, hooks=self._listeners.bind(loop))
        with chosen_weights(parts, self._saver, self._run_dir, ckpt_path):
            return predict(parts, loop, data)

    def validate_all(
        self,
        val_dataloaders: Any,
        ckpt_paths: str | Path | Sequence[str | Path] | None = None,
        loop: LoopCallback | None = None,
    ) -> list[ValidationRow]:
        """Validate every dataloader on every checkpoint, and run the downstream validations on every checkpoint.

        Args:
            val_dataloaders: a dataloader, or a list or a mapping of dataloaders.
            ckpt_paths: paths or patterns of checkpoints, validated in order of their steps; None: weights in memory.
                The weights in memory are restored after the validations.
            loop: loop of the validations; None: the loop of the trainer.

        Returns:
            For each checkpoint, a row for each dataloader and for each downstream validation that logs metrics.

        Raises:
            CheckpointError: if a pattern matches no checkpoint, or a checkpoint cannot be used.
            RuntimeError: if another thread of this process is in a fit or a validation.
        """
        chosen = arguments.validation_loop(loop, self._loop)
        parts = self._bound_for(chosen)
        with parts.streams.active(), parts.strategy.computing():
            if ckpt_paths is not None and self._saver is not None:
                self._saver.wait_or_warn()
            folders: list[Path | None] = [None] if ckpt_paths is None else [*expand(ckpt_paths)]
            return validate_checkpoints(parts, chosen, val_dataloaders, folders)

    def save_checkpoint(self, path: str | Path | None = None) -> Path:
        """Save the run as a checkpoint folder, and return the path of the folder.

        Args:
            path: path of the folder. None: the folder of the current step in ``run_dir``. Old checkpoints are then
                removed, as in a fit.

        Raises:
            RuntimeError: inside a step. In ``on_train_batch_end``, the step has ended if ``global_step`` has increased.
            SaveError: if the checkpoint cannot be written.
            SettingError: if there is no path, and the trainer has no ``checkpoint``.
        """
        self._check_open()
        if path is None:
            if self._saver is None or self._run_dir is None:
                raise SettingError("path", "=null: this trainer has no checkpoint=Checkpointing(…); expected a path.")
            self._saver.save(self._fitting.plan)
            return step_folder(self._run_dir, self.global_step)
        if self._saver is not None:
            self._saver.wait_or_warn()
            self._saver.note_saved_by_hand(Path(path), self.global_step)
        return save_run(self._parts, Path(path), self._fitting.plan)

    def stop(self, reason: str, *, is_interruption: bool = False) -> None:
        """Stop the running fit after its step. The fit saves a checkpoint, if ``checkpoint`` is set, and returns.

        If a method of a callback calls `stop`, `stopped_by` is the name of the callback. Without a fit, do nothing.

        Args:
            reason: reason for the stop, which is shown to the user.
            is_interruption: whether a later process will resume the run. If True, the state of the `FitResult` is
                "interrupted", and a validation in progress is aborted. The resumed run repeats this validation.
        """
        if self._fitting.is_running:
            self._parts.stopping.ask(reason, by=self._listeners.running(), is_interruption=is_interruption)

    def skip_update(self) -> None:
        """Skip the update of the current step: the optimizer and the schedulers are not stepped.

        The step is counted in ``global_step`` and in the metric ``train/skipped_updates``.

        Raises:
            RuntimeError: outside a step, or after the update. The last hook in time is `on_before_optimizer_step`.
        """
        state = self._parts.state
        if not state.is_inside_window or state.is_updated:
            raise RuntimeError("skip_update: expected a call inside a step, before its update.")
        state.is_update_skipped = True

    def log_metrics(self, **values: Tensor | float) -> None:
        """Pass values to the loggers, for the current step. A tensor is copied to the host, which waits for its device.

        Raises:
            TypeError: for a value that is neither a number nor a real tensor with one element.
        """
        prefix = "".join(f"{name}/" for name in self._scopes)
        self._parts.log.log({f"{prefix}{name}": value for name, value in values.items()}, self.global_step)

    @contextmanager
    def name_scope(self, name: str) -> Iterator[None]:
        """Add the prefix ``name/`` to the names of all values that `log_metrics` logs in the ``with`` block."""
        self._scopes.append(name)
        try:
            yield
        finally:
            self._scopes.pop()

    def close(self) -> None:
        """Wait for a save in the background, then finalize all callbacks and loggers. A second call does nothing."""
        self._close(None)

    def _close(self, ended_by: BaseException | None) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        hooks = self._parts.hooks["finalize"]
        if self._saver is not None and (ended_by is None or isinstance(ended_by, Exception)):  # not after a signal
            hooks = (self._saver.wait_alone, *hooks)
        try:
            close_all(hooks, ended_by)
        finally:  # break the reference cycle of trainer and parts, so that the memory of the model is freed now
            self._fitting.close()
            self._parts.trainer, self._parts.hooks = None, {}

    def __enter__(self) -> Self:
        """Return the trainer. The end of the ``with`` block closes the trainer."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close the trainer. If an exception ended the block, errors of `close` are added to the exception as notes."""
        self._close(error)

    def _bound_for(self, loop: ValidationLoop) -> Parts:
        """Return a copy of the `Parts` with the hooks of ``loop``. The hooks of a fit in progress do not change."""
        self._check_open()
        hooks = self._listeners.bind(loop)
        self._listeners.warn_if_unheard(loop, hooks)
        return replace(self._parts, hooks=hooks)

    def _check_open(self) -> None:
        if self._is_closed:
            raise RuntimeError("This trainer is closed; make a new one.")
