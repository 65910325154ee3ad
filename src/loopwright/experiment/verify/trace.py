"""`Trace`, `ValidatingTrace` and `Gradients`: callbacks that record the steps of a run and compare two runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from loopwright.checkpoint import plain_names, unsaved_buffers
from loopwright.experiment.verify.equality import Difference, Leaves, first_difference, is_same, leaves
from loopwright.hooks import Callback
from loopwright.loop import LoopCallback, ValidationLoop
from loopwright.seeding import capture

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from loopwright.trainer import Trainer

# Step (from 1), index of the micro-batch in the step (from 0), and kind of the recorded value.
Moment = tuple[int, int, str]

_OF_TORCH = frozenset(vars(nn.Module()))


class Trace(Callback):
    """Records each micro-batch, each loss, and the weights after each step. Stops the fit after ``num_steps`` steps.

    Args:
        num_steps: number of steps to record, counted from the start of the run.
        against: trace of an earlier run, or None. This run is compared with the earlier run at each step, and stopped
            at the first difference.
        with_validation: whether the metrics of validations and the states of callbacks are also compared.

    Attributes:
        moments: recorded values by step, micro-batch and kind. With ``against``, the values are compared but not
            stored, and every mapping of values is empty.
        difference: first difference from the earlier run; None if no difference was found.
        num_steps_done: number of completed steps, counted from the start of the run.
        stop_reason: reason why the fit stopped early; None if this trace stopped the fit, or if the fit completed.
        changed_attributes: names of attributes of modules whose values changed during the fit, except parameters and
            buffers.
    """

    def __init__(self, num_steps: int, against: Trace | None = None, *, with_validation: bool = True) -> None:
        self._num_steps = num_steps
        self._against = against
        self._with_validation = with_validation
        self._micro_batch = 0
        self._attributes: Leaves = {}
        self.moments: dict[Moment, Leaves] = {}
        self.difference: Difference | None = None
        self.num_steps_done = 0
        self.stop_reason: str | None = None
        self.changed_attributes: list[str] = []

    @property
    def num_compared(self) -> dict[str, int]:
        """Number of times that values were recorded or compared, by kind of value."""
        found: dict[str, int] = {}
        for _, _, kind in self.moments:
            found[kind] = found.get(kind, 0) + 1
        return found

    def on_fit_start(self, trainer: Trainer, train_dataloader: Any, val_dataloader: Any, loop: LoopCallback) -> None:
        """Record the current step, which is above 0 in a resumed run, and the plain attributes of the model."""
        self.num_steps_done = trainer.global_step
        self._attributes = plain_attributes(trainer.model)

    def on_train_batch_start(self, trainer: Trainer, model: nn.Module, batch: Any, batch_idx: int) -> None:
        """Record the micro-batch. All other callbacks, which may change the micro-batch, have already been called."""
        self._note(trainer, trainer.global_step + 1, "batch", leaves(batch))

    def on_train_batch_end(
        self, trainer: Trainer, model: nn.Module, outputs: Mapping[str, Any], batch: Any, batch_idx: int
    ) -> None:
        """Record the loss and, at the end of a step, the metrics and the weights."""
        is_end = trainer.global_step > self.num_steps_done
        step = trainer.global_step if is_end else trainer.global_step + 1
        self._note(trainer, step, "loss", leaves(outputs["loss"]))
        self._micro_batch += 1
        if not is_end:
            return
        if self._with_validation:
            metrics = {name: value for name, value in trainer.metrics.items() if not name.startswith("train/")}
            self._note(trainer, step, "metrics", metrics)
        self._note(trainer, step, "weights", all_weights(model))
        self.num_steps_done, self._micro_batch = step, 0
        if step >= self._num_steps:
            trainer.stop("verified")

    def on_fit_end(self, trainer: Trainer, loop: LoopCallback) -> None:
        """Record which plain attributes the fit changed, and the states of the optimizer and the callbacks.

        The states are not recorded if the earlier run ended after another number of steps than this run.
        """
        if trainer.stop_reason not in ("verified", "differs"):
            self.stop_reason = trainer.stop_reason
        now = plain_attributes(trainer.model)
        self.changed_attributes += _changed(self._attributes, now)
        if self._against is not None and self.num_steps_done != self._against.num_steps_done:
            return
        assert trainer.optimizer is not None, "a fit creates the optimizer"
        state: dict[str, Any] = {"optimizer": trainer.optimizer.state_dict()}
        if self._with_validation:
            for number, callback in enumerate(trainer.callbacks):
                state[f"callbacks.{number}.{type(callback).__name__}"] = callback.state_dict()
        self._note(trainer, self.num_steps_done, "state", leaves(state))

    def _note(self, trainer: Trainer, step: int, kind: str, found: Leaves) -> None:
        if self.difference is not None:
            return
        moment = (step, self._micro_batch, kind)
        if self._against is None:
            self.moments[moment] = found
            return
        self.moments[moment] = {}
        self.difference = first_difference(step, kind, self._against.moments.get(moment, {}), found)
        if self.difference is not None:
            trainer.stop("differs")


class ValidatingTrace(Trace):
    """A `Trace` that runs an additional validation after each step.

    Args:
        num_steps: number of steps to record, counted from the start of the run.
        against: trace of an earlier run, with which this run is compared.
        eval_steps: number of batches of each additional validation.

    Attributes:
        changed_weights: names of parameters and buffers that a validation has changed.
    """

    def __init__(self, num_steps: int, against: Trace, eval_steps: int) -> None:
        super().__init__(num_steps, against, with_validation=False)
        self._loop = ValidationLoop(eval_steps)
        self._val_dataloader: Any = None
        self.changed_weights: list[str] = []

    def on_fit_start(self, trainer: Trainer, train_dataloader: Any, val_dataloader: Any, loop: LoopCallback) -> None:
        """Start the trace, and store the validation dataloader for the additional validations."""
        super().on_fit_start(trainer, train_dataloader, val_dataloader, loop)
        self._val_dataloader = val_dataloader

    def on_train_batch_end(
        self, trainer: Trainer, model: nn.Module, outputs: Mapping[str, Any], batch: Any, batch_idx: int
    ) -> None:
        """At the end of a step, validate and record which weights the validation changed."""
        if trainer.global_step > self.num_steps_done:
            before = all_weights(model)
            trainer.validate(self._val_dataloader, loop=self._loop)
            changed = first_difference(trainer.global_step, "weights", before, all_weights(model))
            if changed is not None and changed.name not in self.changed_weights:
                self.changed_weights.append(changed.name)
        super().on_train_batch_end(trainer, model, outputs, batch, batch_idx)


class Gradients(Callback):
    """Records the gradients and the samples of each step.

    If ``against`` is given, this run updates its weights with the gradients in ``against``, so that both runs start
    every step with the same weights. A difference in one step then has no effect on later steps.

    Args:
        num_steps: number of steps to record.
        against: recorded gradients of an earlier run, or None.

    Attributes:
        gradients: gradients of each step, by the name of the parameter.
        samples: leaves of each micro-batch, in one list for each step.
        has_drawn: whether the model has drawn random numbers from the global generators of torch, NumPy or Python.
        changed: names of buffers and plain attributes of the model that a forward has changed.
        num_rows: number of rows of the first tensor of each micro-batch for which the model returned no ``num_items``.
    """

    def __init__(self, num_steps: int, against: Gradients | None = None) -> None:
        self._num_steps = num_steps
        self._against = against
        self._batches: list[Leaves] = []
        self._streams: Leaves = {}
        self._state: dict[str, Any] = {}
        self.gradients: list[dict[str, Tensor]] = []
        self.samples: list[list[Leaves]] = []
        self.has_drawn = False
        self.changed: list[str] = []
        self.num_rows: list[int] = []

    def on_train_batch_start(self, trainer: Trainer, model: nn.Module, batch: Any, batch_idx: int) -> None:
        """Record the samples of the micro-batch."""
        self._batches.append(leaves(batch))

    def on_before_forward(self, trainer: Trainer, model: nn.Module, batch: Any, args: Any, kwargs: Any) -> None:
        """Record the states of the random generators and of the model."""
        self._streams = leaves(capture())
        self._state = _state_of(model)

    def on_after_forward(self, trainer: Trainer, model: nn.Module, outputs: Any, batch: Any) -> None:
        """Record whether the forward drew random numbers, and which buffers and attributes of the model changed."""
        self.has_drawn |= bool(_changed(self._streams, leaves(capture())))
        self.changed += [name for name in _changed(self._state, _state_of(model)) if name not in self.changed]
        if outputs.get("num_items") is None:
            tensors = [leaf for leaf in self._batches[-1].values() if isinstance(leaf, Tensor) and leaf.ndim]
            self.num_rows += [len(tensors[0])] if tensors else []

    def on_before_optimizer_step(self, trainer: Trainer, model: nn.Module, optimizer: Optimizer) -> None:
        """Record the gradients of a step. With ``against``, then replace each gradient by the gradient in ``against``.

        The recorded gradients are weighted by the number of items, and not yet clipped.
        """
        step = len(self.gradients)
        parameters = trainer.parameters
        self.gradients.append(
            {name: each.grad.detach().cpu().clone() for name, each in parameters.items() if each.grad is not None}
        )
        self.samples.append(self._batches)
        self._batches = []
        if self._against is not None and step < len(self._against.gradients):
            for name, gradient in self._against.gradients[step].items():
                own = parameters[name].grad
                if own is not None:
                    own.copy_(gradient)
        if len(self.gradients) >= self._num_steps:
            trainer.stop("verified")


def all_weights(model: nn.Module) -> dict[str, Any]:
    """Return copies of all parameters and buffers, including buffers that a checkpoint does not contain."""
    return leaves({**plain_names(model), **unsaved_buffers(model)})


def _state_of(model: nn.Module) -> dict[str, Any]:
    """Return copies of all buffers and plain attributes, except the buffers of batch normalization modules."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    of_norms = {id(buffer) for module in norms for buffer in module.buffers()}
    buffers = {name: buffer for name, buffer in model.named_buffers() if id(buffer) not in of_norms}
    return {**leaves(buffers), **plain_attributes(model)}


def _changed(before: Leaves, after: Leaves) -> list[str]:
    """Return the sorted names that are in both mappings and whose values differ."""
    return sorted(name for name in before.keys() & after.keys() if not is_same(before[name], after[name]))


def plain_attributes(model: nn.Module) -> dict[str, Any]:
    """Return copies of the tensors, arrays and numbers in plain attributes of modules.

    A checkpoint does not contain plain attributes.
    """
    found: dict[str, Any] = {}
    for prefix, module in model.named_modules():
        for name, value in vars(module).items():
            if name not in _OF_TORCH and isinstance(value, Tensor | np.ndarray | int | float):
                found |= leaves(value, f"{prefix}.{name}" if prefix else name)
    return found
