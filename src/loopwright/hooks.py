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

    ``*_batch_*`` and ``*_step_*`` hooks are called for each micro-batch. The batch hooks are called before and after
    the step hooks. The forward, the backward and the update of a step are between the step hooks. An exception in a
    hook ends the run. The exception keeps its type, and gets a note that names the callback and the hook.

    When a trainer is built, a hook with other parameters is refused. A warning is issued for a method whose name begins
    with ``on_`` and is not the name of a hook. If a `ValidationLoop` that is given later may define this hook, the
    warning is issued at the end of the first fit.
    """

    def state_dict(self) -> dict[str, Any]:
        """Return the state of this callback for a checkpoint.

        The state may contain tensors, NumPy arrays and scalars of numbers, JSON scalars, lists, tuples, and dicts with
        str or int keys. `Trainer` and `Trainer.fit` raise a `SettingError` if the state contains any other value.
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
        """Called at the beginning of a fit. Contexts that this hook enters in ``stack`` exit when the fit ends."""

    def on_fit_start(self, trainer: Trainer, train_dataloader: Any, val_dataloader: Any, loop: LoopCallback) -> None:
        """Called in a fit after the checkpoint is loaded and the plan is computed, before the first stage."""

    def on_fit_end(self, trainer: Trainer, loop: LoopCallback) -> None:
        """Called when a fit has ended without an exception."""

    def on_fit_exception(self, trainer: Trainer, exception: Exception) -> None:
        """Called when an exception ends a fit, after the contexts of `on_enter_fit` exit."""

    # Train loop: the training steps between two validations

    def on_enter_train(
        self, trainer: Trainer, stack: ExitStack, train_dataloader: Any, loop: LoopCallback, loop_idx: int
    ) -> None:
        """Called before each train loop. Contexts that this hook enters in ``stack`` exit when the train loop ends."""

    def on_train_start(
        self, trainer: Trainer, model: nn.Module, train_dataloader: Any, loop: LoopCallback, loop_idx: int
    ) -> None:
        """Called at the start of each train loop."""

    def on_train_end(self, trainer: Trainer, model: nn.Module, loop: LoopCallback, loop_idx: int) -> None:
        """Called at the end of each train loop."""

    def on_train_exception(self, trainer: Trainer, exception: Exception) -> None:
        """Called when an exception ends a train loop, after the contexts of `on_enter_train` exit."""

    def on_train_batch_start(self, trainer: Trainer, model: nn.Module, batch: Any, batch_idx: int) -> None:
        """Called before each training micro-batch. ``batch_idx`` starts at 0 in each train loop."""

    def on_train_batch_end(
        self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any], batch: Any, batch_idx: int
    ) -> None:
        """Called after each training micro-batch.

        If the micro-batch was the last micro-batch of its step, ``trainer.global_step`` already includes this step. At
        a log step, the loggers have then already received the training metrics.

        If several processes train together, this hook is called in every process after each micro-batch. While
        ``trainer.is_padding`` is True, the micro-batch does not count in this process. ``batch`` is then None, and
        ``outputs`` is empty, if the dataloader of this process has not yielded a batch yet.
        """

    def on_train_step_start(self, trainer: Trainer, model: nn.Module, batch: Any) -> None:
        """Called before the forward of a training micro-batch."""

    def on_train_step_end(self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any], batch: Any) -> None:
        """Called after the backward of a training micro-batch. If an update follows, called after the update."""

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

        ``loop_idx`` is the index, from 0, of the last train loop; None in `Trainer.validate_all`.
        ``is_last`` is True in the last round of a fit, and in `Trainer.validate_all`.
        """

    def on_enter_validate(self, trainer: Trainer, stack: ExitStack, val_dataloader: Any, loop: LoopCallback) -> None:
        """Called at the beginning of the validation of each dataloader.

        A checkpoint to be validated is already loaded. Contexts that this hook enters in ``stack`` exit when the
        validation of this dataloader ends, before `on_validate_exception`.
        """

    def on_validate_start(self, trainer: Trainer, model: nn.Module, val_dataloader: Any, loop: LoopCallback) -> None:
        """Called when the validation of one dataloader starts."""

    def on_validate_end(self, trainer: Trainer, model: nn.Module, loop: LoopCallback) -> None:
        """Called after one dataloader is validated and its averages are logged.

        A metric that this hook logs as ``f"{trainer.validation_name}/…"`` is a result of the validation.
        """

    def on_validate_exception(self, trainer: Trainer, exception: Exception) -> None:
        """Called when an exception ends a validation, after the contexts of `on_enter_validate` exit."""

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
        """Called before the forward. A hook may change ``args``, initially ``[batch]``, and ``kwargs`` in place."""

    def on_after_forward(self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any], batch: Any) -> None:
        """Called after the forward. ``outputs`` may lack ``loss`` only if `predict` is overridden."""

    def on_before_backward(self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any]) -> None:
        """Called before the backward of a micro-batch."""

    def on_after_backward(self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any]) -> None:
        """Called after the backward of a micro-batch."""

    def on_before_optimizer_step(self, trainer: Trainer, model: nn.Module, optimizer: Optimizer) -> None:
        """Called before the update. The gradients are means over the items of the step, and are not yet clipped."""

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
        """Called before a checkpoint is saved. A hook may add entries to ``state_dict`` for the checkpoint."""

    def postprocess_checkpoint(self, trainer: Trainer, state_dict: dict[str, Any]) -> None:
        """Called after the `on_save_checkpoint` of all callbacks. A hook may change any entry of ``state_dict``."""

    def on_after_save_checkpoint(self, trainer: Trainer, ckpt_path: Path) -> None:
        """Called when the checkpoint ``ckpt_path`` is complete on the disk.

        If the checkpoint is saved in the background, this hook is called at the next save or at the end of the fit.
        """

    def on_before_load_checkpoint(self, trainer: Trainer, ckpt_path: Path) -> None:
        """Called before the checkpoint ``ckpt_path`` is read.

        ``trainer.global_step`` is here the step of the weights in memory, even for the second checkpoint of
        `Trainer.validate_all`. During the validation of a checkpoint, ``global_step`` is the step of the checkpoint.
        """

    def preprocess_checkpoint(self, trainer: Trainer, state_dict: dict[str, Any]) -> None:
        """Called after a checkpoint is read and before it is used. A hook may change ``state_dict``."""

    def on_load_checkpoint(self, trainer: Trainer, state_dict: dict[str, Any]) -> None:
        """Called when the state of a checkpoint is loaded. A hook may read entries that `on_save_checkpoint` added."""


class ValidationCallback(Callback):
    """Base class of callbacks that run a downstream validation. Subclasses override `run_validation`.

    A downstream validation runs in every ``every_n_vals``-th round of validations, and in the last round.

    Args:
        every_n_vals: number of rounds of validations from one downstream validation of this callback to the next.
        name: name of the downstream validation in the plan, which is also the prefix of its metrics; None: the key of
            the callback in a mapping of callbacks, or the class name.
    """

    def __init__(self, every_n_vals: int = 1, name: str | None = None) -> None:
        self._every_n_vals = check_count("every_n_vals", every_n_vals)
        self._name = name

    @property
    def every_n_vals(self) -> int:
        """Number of rounds of validations from one downstream validation of this callback to the next."""
        return self._every_n_vals

    @property
    def name(self) -> str | None:
        """Prefix of the metrics of this callback; None if no name was given."""
        return self._name


class Logger(Callback):
    """Base class of callbacks that record the metrics of a run."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Record metrics of ``step``, such as losses. A repeated run gives equal values."""

    def log_timing(self, timing: Mapping[str, float], step: int) -> None:
        """Record durations, rates and sizes of ``step``. Each name ends with the unit."""

    def log_text(self, texts: Mapping[str, str], step: int) -> None:
        """Record strings of ``step``, such as texts that a language model has generated."""


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
    """Return whether the class of ``callback`` is defined in the package ``loopwright``."""
    return type(callback).__module__.partition(".")[0] == "loopwright"


@runtime_checkable
class HasStatePerProcess(Protocol):
    """A callback whose state differs between processes that train together.

    A checkpoint contains the ``state_dict`` of every process, and a resume loads the own state in each process. The
    state of other callbacks is the state of process 0.
    """

    def forget_state(self) -> None:
        """Reset the state. Called in a resume with more processes, in a process that has no state in the checkpoint."""
        ...


@runtime_checkable
class RepeatsFirstBatch(Protocol):
    """A callback that replaces every training micro-batch by the first micro-batch."""

    repeats_first_batch: Literal[True]


@runtime_checkable
class AddsPlanNotes(Protocol):
    """A callback that adds lines to the notes in each description of a plan."""

    plan_notes: Sequence[str]


@runtime_checkable
class RecordsSweeps(Protocol):
    """A logger that also records a sweep. The process that starts the jobs of the sweep calls these methods."""

    def begin_sweep(self, sweep_dir: Path) -> None:
        """Called before the first job begins, and before the remaining jobs of a resumed sweep begin."""
        ...

    def end_sweep(self, sweep_dir: Path, state: str) -> None:
        """Called after the last job has ended. ``state`` is "done", "failed" or "interrupted"."""
        ...
