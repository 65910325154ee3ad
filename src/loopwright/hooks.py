"""Base classes `Callback`, `ValidationCallback` and `Logger`, and functions that inspect their hooks.

A hook is a method that is called at one point of a run. Every method of `Callback` is a hook, except ``state_dict`` and
``load_state_dict``. `HOOKS` contains the names of all hooks. A hook that no object overrides is never called.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from loopwright.errors import check_count

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

    from torch import nn
    from torch.optim import Optimizer

    from loopwright.loop import LoopCallback
    from loopwright.trainer import Trainer


class Callback:
    """Base class of all objects whose methods are called during a run. Override the hooks that you need.

    ``*_batch_*`` and ``*_step_*`` hooks are called for each micro-batch. The batch hooks enclose the step hooks. The
    step hooks enclose the forward, the backward and, after the last micro-batch of a step, the update. An exception in
    a hook ends the run. The exception keeps its type, and gets a note that names the callback and the hook.

    When a trainer is built, a hook that cannot be called with its arguments is refused, and a method that begins with
    ``on_`` and is no hook is warned of. If the method may be a hook of a `ValidationLoop` that is given later, the
    warning comes when a fit has ended without such a loop.
    """

    def state_dict(self) -> dict[str, Any]:
        """Return the state of this callback for a checkpoint.

        The state may contain tensors, NumPy arrays and scalars of numbers, JSON scalars, lists, tuples, and dicts with
        str or int keys. For any other value, building the trainer raises a `SettingError`, or `Trainer.fit` if the
        value is new since then.
        """
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""

    # Set-up and end

    def pre_setup(self, trainer: Trainer) -> None:
        """Called after the model and the optimizer are built, before the `setup` of any callback."""

    def setup(self, trainer: Trainer) -> None:
        """Called after the `pre_setup` of all callbacks, while the trainer is built."""

    def post_setup(self, trainer: Trainer) -> None:
        """Called after the `setup` of all callbacks, while the trainer is built."""

    def finalize(self) -> None:
        """Called once, when the trainer is closed. Close files and release other resources here."""

    # Fit

    def on_enter_fit(
        self, trainer: Trainer, stack: ExitStack, train_dataloader: Any, val_dataloader: Any, loop: LoopCallback
    ) -> None:
        """Called first in a fit. Context managers that are entered into ``stack`` exit when the fit ends."""

    def on_fit_start(self, trainer: Trainer, train_dataloader: Any, val_dataloader: Any, loop: LoopCallback) -> None:
        """Called after the plan of a fit is computed and the checkpoint, if one is given, is loaded."""

    def on_fit_end(self, trainer: Trainer, loop: LoopCallback) -> None:
        """Called when a fit has ended without an exception."""

    def on_fit_exception(self, trainer: Trainer, exception: Exception) -> None:
        """Called when an exception ends a fit, after the contexts of `on_enter_fit`. The exception is raised again."""

    # Train loop: the training steps between two validations

    def on_enter_train(
        self, trainer: Trainer, stack: ExitStack, train_dataloader: Any, loop: LoopCallback, loop_idx: int
    ) -> None:
        """Called before each train loop. Context managers entered into ``stack`` exit when that train loop ends."""

    def on_train_start(
        self, trainer: Trainer, model: nn.Module, train_dataloader: Any, loop: LoopCallback, loop_idx: int
    ) -> None:
        """Called at the start of each train loop."""

    def on_train_end(self, trainer: Trainer, model: nn.Module, loop: LoopCallback, loop_idx: int) -> None:
        """Called at the end of each train loop."""

    def on_train_exception(self, trainer: Trainer, exception: Exception) -> None:
        """Called when an exception ends a train loop, after its contexts are left. The exception is raised again."""

    def on_train_batch_start(self, trainer: Trainer, model: nn.Module, batch: Any, batch_idx: int) -> None:
        """Called before each training micro-batch. ``batch_idx`` starts at 0 in each train loop."""

    def on_train_batch_end(
        self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any], batch: Any, batch_idx: int
    ) -> None:
        """Called after each training micro-batch.

        At a log step, loggers receive the training values of the step just before this hook of its last micro-batch.
        If the micro-batch completed a step, ``trainer.global_step`` includes that step.
        """

    def on_train_step_start(self, trainer: Trainer, model: nn.Module, batch: Any) -> None:
        """Called before the forward of a training micro-batch."""

    def on_train_step_end(self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any], batch: Any) -> None:
        """Called after the backward of a training micro-batch, and after the update, if one follows."""

    # Validation

    def on_enter_validate_all(
        self,
        trainer: Trainer,
        stack: ExitStack,
        val_dataloaders: Any,
        loop: LoopCallback,
        ckpt_paths: list[Path | None],
    ) -> None:
        """Called before a round of validations, in a fit or in `Trainer.validate_all`."""

    def run_validation(self, trainer: Trainer, loop_idx: int | None, is_last: bool) -> None:
        """Run a validation that this callback implements. Called after all dataloaders of a round are validated.

        ``loop_idx`` is the index, from 0, of the train loop that has just ended; None in `Trainer.validate_all`.
        ``is_last`` is True in the last round of a fit, and in `Trainer.validate_all`.
        """

    def on_enter_validate(self, trainer: Trainer, stack: ExitStack, val_dataloader: Any, loop: LoopCallback) -> None:
        """Called first for each validation dataloader.

        If a checkpoint is validated, it is loaded before this hook. Context managers entered into ``stack`` exit when
        the validation of this dataloader ends, before `on_validate_exception`.
        """

    def on_validate_start(self, trainer: Trainer, model: nn.Module, val_dataloader: Any, loop: LoopCallback) -> None:
        """Called when the validation of one dataloader starts."""

    def on_validate_end(self, trainer: Trainer, model: nn.Module, loop: LoopCallback) -> None:
        """Called after one dataloader is validated and its averages are logged.

        A value that is logged here as ``f"{trainer.validation_name}/…"`` counts as a result of the validation.
        """

    def on_validate_exception(self, trainer: Trainer, exception: Exception) -> None:
        """Called when an exception ends a validation, after its contexts are left. The exception is raised again."""

    def on_validate_batch_start(self, trainer: Trainer, model: nn.Module, batch: Any, batch_idx: int) -> None:
        """Called before each validation batch."""

    def on_validate_batch_end(
        self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any], batch: Any, batch_idx: int
    ) -> None:
        """Called after each validation batch."""

    def on_validate_step_start(self, trainer: Trainer, model: nn.Module, batch: Any) -> None:
        """Called before the forward of a validation batch."""

    def on_validate_step_end(self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any], batch: Any) -> None:
        """Called after the forward of a validation batch."""

    # Inside a micro-batch

    def on_before_forward(
        self, trainer: Trainer, model: nn.Module, batch: Any, args: list[Any], kwargs: dict[str, Any]
    ) -> None:
        """Called before the forward. A hook may change ``args``, at first ``[batch]``, and ``kwargs`` in place."""

    def on_after_forward(self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any], batch: Any) -> None:
        """Called after the forward. ``outputs`` may lack ``loss`` only if `predict` is overridden."""

    def on_before_backward(self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any]) -> None:
        """Called before the backward of a micro-batch."""

    def on_after_backward(self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any]) -> None:
        """Called after the backward of a micro-batch."""

    def on_before_optimizer_step(self, trainer: Trainer, model: nn.Module, optimizer: Optimizer) -> None:
        """Called before the update. Gradients are weighted, but not yet clipped."""

    def on_after_optimizer_step(self, trainer: Trainer, model: nn.Module, optimizer: Optimizer) -> None:
        """Called after the update."""

    def on_before_optimizer_zero_grad(self, trainer: Trainer, model: nn.Module, optimizer: Optimizer) -> None:
        """Called before the gradients are cleared."""

    def on_after_optimizer_zero_grad(self, trainer: Trainer, model: nn.Module, optimizer: Optimizer) -> None:
        """Called after the gradients are cleared."""

    def on_before_scheduler_step(
        self, trainer: Trainer, model: nn.Module, optimizer: Optimizer, scheduler: Any
    ) -> None:
        """Called before the step of each scheduler."""

    def on_after_scheduler_step(self, trainer: Trainer, model: nn.Module, optimizer: Optimizer, scheduler: Any) -> None:
        """Called after the step of each scheduler."""

    # Checkpoints

    def on_save_checkpoint(self, trainer: Trainer, state_dict: dict[str, Any]) -> None:
        """Called before a checkpoint is saved. A hook may add entries to ``state_dict``, which will be saved."""

    def postprocess_checkpoint(self, trainer: Trainer, state_dict: dict[str, Any]) -> None:
        """Called after the `on_save_checkpoint` of all callbacks. A hook may change any entry of ``state_dict``."""

    def on_after_save_checkpoint(self, trainer: Trainer, ckpt_path: Path) -> None:
        """Called when the checkpoint ``ckpt_path`` is complete on the disk.

        If the checkpoint is saved in the background, this hook is called at the next save or at the end of the fit.
        """

    def on_before_load_checkpoint(self, trainer: Trainer, ckpt_path: Path) -> None:
        """Called before the checkpoint ``ckpt_path`` is read.

        ``trainer.global_step`` is the step of the weights in memory here, also between two checkpoints of
        `Trainer.validate_all`. It is the step of the checkpoint from `on_load_checkpoint` to the end of its validation.
        """

    def preprocess_checkpoint(self, trainer: Trainer, state_dict: dict[str, Any]) -> None:
        """Called after a checkpoint is read and before it is used. A hook may change ``state_dict``."""

    def on_load_checkpoint(self, trainer: Trainer, state_dict: dict[str, Any]) -> None:
        """Called when the state of a checkpoint is loaded. A hook may read entries that `on_save_checkpoint` added."""


class ValidationCallback(Callback):
    """Base class of downstream validations, which are validations that a callback runs in `run_validation`.

    A downstream validation runs in every ``every_n_vals``-th round of validations, and in the last round. Subclasses
    override `run_validation`.

    Args:
        every_n_vals: number of rounds of validations from one run of this callback to the next.
        name: prefix of the metrics of this callback, and its name in the plan; None: the key or class name of the
            callback.
    """

    def __init__(self, every_n_vals: int = 1, name: str | None = None) -> None:
        self._every_n_vals = check_count("every_n_vals", every_n_vals)
        self._name = name

    @property
    def every_n_vals(self) -> int:
        """Number of rounds of validations from one run of this callback to the next."""
        return self._every_n_vals

    @property
    def name(self) -> str | None:
        """Prefix of the metrics of this callback; None if no name was given."""
        return self._name


class Logger(Callback):
    """Base class of callbacks that record the metrics of a run."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Record metrics of ``step``, such as losses. If the run is repeated, these metrics have equal values."""

    def log_timing(self, timing: Mapping[str, float], step: int) -> None:
        """Record durations and rates of ``step``. Each name ends with the unit. Most loggers do not override this."""

    def log_text(self, texts: Mapping[str, str], step: int) -> None:
        """Record strings of ``step``, such as samples of a language model. Most loggers do not override this."""


_STATE_METHODS = frozenset({"state_dict", "load_state_dict"})

HOOKS: tuple[str, ...] = tuple(
    name
    for name, member in vars(Callback).items()
    if inspect.isfunction(member) and not name.startswith("_") and name not in _STATE_METHODS
)


def implements(callback: Callback, hook: str) -> bool:
    """Return whether ``callback`` overrides ``hook``, in its class or on the instance."""
    if hook in vars(callback):
        return True
    return getattr(type(callback), hook, None) is not getattr(Callback, hook, None)


def is_shipped(callback: Callback) -> bool:
    """Return whether the class of ``callback`` is in this package, and not in code of the user."""
    return type(callback).__module__.partition(".")[0] == "loopwright"


@runtime_checkable
class RepeatsFirstBatch(Protocol):
    """A callback that replaces every training micro-batch by the first one."""

    repeats_first_batch: Literal[True]


@runtime_checkable
class AddsPlanNotes(Protocol):
    """A callback that adds lines to the notes of a plan, in all descriptions of the plan."""

    plan_notes: Sequence[str]
