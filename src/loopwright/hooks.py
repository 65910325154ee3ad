"""`Callback` and its kin: what a run tells the objects that listen to it.

The methods of `Callback` are the one list of hooks; `HOOKS` is derived from it. A hook that nobody
overrides is never called.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from loopwright.errors import check_count

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

    from torch import nn
    from torch.optim import Optimizer

    from loopwright.loop import LoopCallback
    from loopwright.trainer import Trainer


class Callback:
    """Base class of everything that listens to a run; override the hooks you need.

    ``*_batch_*`` and ``*_step_*`` hooks are per micro-batch: batch around step around forward, backward and,
    where a window of micro-batches closes, the update. An exception in a hook ends the run with its type
    unchanged and a note that names callback and hook.
    """

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint stores of this callback.

        Tensors, JSON scalars, lists, tuples, and dicts with str or int keys; anything else is refused when
        the trainer is built.
        """
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""

    # Set-up and end

    def pre_setup(self, trainer: Trainer) -> None:
        """Called first while the trainer is built, before any `setup`."""

    def setup(self, trainer: Trainer) -> None:
        """Called while the trainer is built; model and optimizer exist."""

    def post_setup(self, trainer: Trainer) -> None:
        """Called last while the trainer is built."""

    def finalize(self) -> None:
        """Called once, when the trainer is closed: release what you hold."""

    # Fit

    def on_enter_fit(
        self, trainer: Trainer, stack: ExitStack, train_dataloader: Any, val_dataloader: Any, loop: LoopCallback
    ) -> None:
        """Called first in a fit; context managers entered into ``stack`` are left when the fit ends."""

    def on_fit_start(self, trainer: Trainer, train_dataloader: Any, val_dataloader: Any, loop: LoopCallback) -> None:
        """Called when a fit's plan is known and any checkpoint is loaded."""

    def on_fit_end(self, trainer: Trainer, loop: LoopCallback) -> None:
        """Called when a fit has ended without an exception."""

    def on_fit_exception(self, trainer: Trainer, exception: Exception) -> None:
        """Called when an exception ends a fit; it is raised again afterwards."""

    # Train loop: the training between two validations

    def on_enter_train(
        self, trainer: Trainer, stack: ExitStack, train_dataloader: Any, loop: LoopCallback, loop_idx: int
    ) -> None:
        """Called before each train loop; ``stack`` is left when that train loop ends."""

    def on_train_start(
        self, trainer: Trainer, model: nn.Module, train_dataloader: Any, loop: LoopCallback, loop_idx: int
    ) -> None:
        """Called at the start of each train loop."""

    def on_train_end(self, trainer: Trainer, model: nn.Module, loop: LoopCallback, loop_idx: int) -> None:
        """Called at the end of each train loop."""

    def on_train_exception(self, trainer: Trainer, exception: Exception) -> None:
        """Called when an exception ends a train loop; it is raised again afterwards."""

    def on_train_batch_start(self, trainer: Trainer, model: nn.Module, batch: Any, batch_idx: int) -> None:
        """Called before each training micro-batch; ``batch_idx`` restarts in each train loop."""

    def on_train_batch_end(
        self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any], batch: Any, batch_idx: int
    ) -> None:
        """Called after each training micro-batch; ``trainer.global_step`` has moved where a step was completed."""

    def on_train_step_start(self, trainer: Trainer, model: nn.Module, batch: Any) -> None:
        """Called before a micro-batch's forward."""

    def on_train_step_end(self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any], batch: Any) -> None:
        """Called after a micro-batch's backward and, where a window closes, the update."""

    # Validation

    def on_enter_validate_all(
        self,
        trainer: Trainer,
        stack: ExitStack,
        val_dataloaders: Any,
        loop: LoopCallback,
        ckpt_paths: list[Path | None],
    ) -> None:
        """Called before a round of validations: of one step of a fit, or of `Trainer.validate_all`."""

    def run_validation(self, trainer: Trainer, loop_idx: int | None, is_last: bool) -> None:
        """Run a downstream validation; called after the dataloaders of a round were validated.

        ``loop_idx`` is the train loop that has just ended, None in `Trainer.validate_all`.
        """

    def on_enter_validate(self, trainer: Trainer, stack: ExitStack, val_dataloader: Any, loop: LoopCallback) -> None:
        """Called first when one dataloader is validated; ``stack`` is left when that ends."""

    def on_validate_start(self, trainer: Trainer, model: nn.Module, val_dataloader: Any, loop: LoopCallback) -> None:
        """Called when the validation of one dataloader starts."""

    def on_validate_end(self, trainer: Trainer, model: nn.Module, loop: LoopCallback) -> None:
        """Called when the validation of one dataloader has ended and its averages are logged.

        What is logged here, as ``f"{trainer.validation_name}/…"``, counts as a result of the validation.
        """

    def on_validate_exception(self, trainer: Trainer, exception: Exception) -> None:
        """Called when an exception ends a validation; it is raised again afterwards."""

    def on_validate_batch_start(self, trainer: Trainer, model: nn.Module, batch: Any, batch_idx: int) -> None:
        """Called before each validation batch."""

    def on_validate_batch_end(
        self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any], batch: Any, batch_idx: int
    ) -> None:
        """Called after each validation batch."""

    def on_validate_step_start(self, trainer: Trainer, model: nn.Module, batch: Any) -> None:
        """Called before a validation batch's forward."""

    def on_validate_step_end(self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any], batch: Any) -> None:
        """Called after a validation batch's forward."""

    # Inside a micro-batch

    def on_before_forward(
        self, trainer: Trainer, model: nn.Module, batch: Any, args: list[Any], kwargs: dict[str, Any]
    ) -> None:
        """Called before the model; ``args`` (``[batch]``) and ``kwargs`` may be changed in place."""

    def on_after_forward(self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any], batch: Any) -> None:
        """Called after the model; ``outputs`` holds at least ``loss``."""

    def on_before_backward(self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any]) -> None:
        """Called before the backward of a micro-batch."""

    def on_after_backward(self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any]) -> None:
        """Called after the backward of a micro-batch."""

    def on_before_optimizer_step(self, trainer: Trainer, model: nn.Module, optimizer: Optimizer) -> None:
        """Called before the update; gradients are weighted, not yet clipped."""

    def on_after_optimizer_step(self, trainer: Trainer, model: nn.Module, optimizer: Optimizer) -> None:
        """Called after the update."""

    def on_before_optimizer_zero_grad(self, trainer: Trainer, model: nn.Module, optimizer: Optimizer) -> None:
        """Called before the gradients are dropped."""

    def on_after_optimizer_zero_grad(self, trainer: Trainer, model: nn.Module, optimizer: Optimizer) -> None:
        """Called after the gradients are dropped."""

    def on_before_scheduler_step(
        self, trainer: Trainer, model: nn.Module, optimizer: Optimizer, scheduler: Any
    ) -> None:
        """Called before each scheduler's step."""

    def on_after_scheduler_step(self, trainer: Trainer, model: nn.Module, optimizer: Optimizer, scheduler: Any) -> None:
        """Called after each scheduler's step."""

    # Checkpoints

    def on_save_checkpoint(self, trainer: Trainer, state_dict: dict[str, Any]) -> None:
        """Called with the state about to be saved; add entries of your own."""

    def postprocess_checkpoint(self, trainer: Trainer, state_dict: dict[str, Any]) -> None:
        """Called after every `on_save_checkpoint`; change the state before it is written."""

    def on_after_save_checkpoint(self, trainer: Trainer, ckpt_path: Path) -> None:
        """Called when the checkpoint at ``ckpt_path`` is whole on disk; saved in the background, at the next save."""

    def on_before_load_checkpoint(self, trainer: Trainer, ckpt_path: Path) -> None:
        """Called before the checkpoint at ``ckpt_path`` is read."""

    def preprocess_checkpoint(self, trainer: Trainer, state_dict: dict[str, Any]) -> None:
        """Called with the state just read; change it before it is used."""

    def on_load_checkpoint(self, trainer: Trainer, state_dict: dict[str, Any]) -> None:
        """Called after `preprocess_checkpoint`; take the entries of your own."""


class ValidationCallback(Callback):
    """A downstream validation, run after the dataloaders of every nth validation, and of the last.

    Subclasses override `run_validation`.

    Args:
        every_n_vals: validations between two runs.
        name: prefix of its metrics and its name in the plan; None: the key or class name of the callback.
    """

    def __init__(self, every_n_vals: int = 1, name: str | None = None) -> None:
        self._every_n_vals = check_count("every_n_vals", every_n_vals)
        self._name = name

    @property
    def every_n_vals(self) -> int:
        """Validations between two runs of this one."""
        return self._every_n_vals

    @property
    def name(self) -> str | None:
        """Prefix of the metrics, where one was given."""
        return self._name


class Logger(Callback):
    """A callback that is handed the metrics of a run."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Record deterministic values, such as losses, that belong to ``step``."""

    def log_timing(self, timing: Mapping[str, float], step: int) -> None:
        """Record clocks and rates (names carry the unit) that belong to ``step``; most loggers need not."""

    def log_text(self, texts: Mapping[str, str], step: int) -> None:
        """Record texts, such as what a language model wrote at ``step``; most loggers need not."""


_STATE_METHODS = frozenset({"state_dict", "load_state_dict"})

HOOKS: tuple[str, ...] = tuple(
    name
    for name, member in vars(Callback).items()
    if inspect.isfunction(member) and not name.startswith("_") and name not in _STATE_METHODS
)


def implements(callback: Callback, hook: str) -> bool:
    """Whether ``callback`` overrides ``hook``, in its class or on the instance."""
    if hook in vars(callback):
        return True
    return getattr(type(callback), hook, None) is not getattr(Callback, hook, None)


def misspelt_hooks(callback: Callback, known: Iterable[str] = ()) -> list[tuple[str, str]]:
    """Methods of ``callback`` that begin with ``on_`` and are almost, but not, a hook.

    Args:
        callback: any callback.
        known: further names that are hooks, such as those of a validation loop of its own.

    Returns:
        (method, nearest hook) for each method within edit distance 2 of a hook.
    """
    hooks = {*HOOKS, *known}
    found = []
    for name in dir(type(callback)):
        if name.startswith("on_") and name not in hooks and callable(getattr(type(callback), name)):
            near = [hook for hook in hooks if _is_within_edits(name, hook, 2)]
            if near:
                found.append((name, max(near, key=lambda hook: difflib.SequenceMatcher(None, name, hook).ratio())))
    return found


def _is_within_edits(a: str, b: str, limit: int) -> bool:
    """Whether at most ``limit`` insertions, deletions and substitutions turn ``a`` into ``b`` (Levenshtein)."""
    if abs(len(a) - len(b)) > limit:
        return False
    previous = list(range(len(b) + 1))
    for i, char in enumerate(a, start=1):
        row = [i]
        for j, other in enumerate(b, start=1):
            row.append(min(previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (char != other)))
        previous = row
    return previous[-1] <= limit
