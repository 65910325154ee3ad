"""`Trace` and its kin: callbacks that keep what a run does at each step, or compare it with what another one kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from loopwright.checkpoint import plain_names, unsaved_buffers
from loopwright.engine.weighting import num_items
from loopwright.experiment.verify.equality import Difference, Leaves, first_difference, is_same, leaves
from loopwright.hooks import Callback
from loopwright.loop import LoopCallback, ValidationLoop
from loopwright.seeding import capture

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from loopwright.trainer import Trainer

# (step under way, micro-batch in it, kind)
Moment = tuple[int, int, str]

_OF_TORCH = frozenset(vars(nn.Module()))


class Trace(Callback):
    """Keeps each micro-batch, its loss, and the weights after each step; stops the fit after ``num_steps``.

    Args:
        num_steps: that are to be traced, counted from the beginning of the run.
        against: of the run to compare with, as this one goes along; the first difference stops it, too.
        with_validation: whether what comes of validations is compared as well: their results, and what callbacks that
            listen to them keep.

    Attributes:
        moments: what was kept; of a run that is compared, that it was.
        difference: the first one.
        num_steps_done: when it ended.
        stop_reason: why it ended, where that was not this trace.
        changed_attributes: plain attributes of modules that the fit has changed.
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
        """Of each kind, what has been kept or compared."""
        found: dict[str, int] = {}
        for _, _, kind in self.moments:
            found[kind] = found.get(kind, 0) + 1
        return found

    def on_fit_start(self, trainer: Trainer, train_dataloader: Any, val_dataloader: Any, loop: LoopCallback) -> None:
        """A run that is resumed has done some steps."""
        self.num_steps_done = trainer.global_step
        self._attributes = plain_attributes(trainer.model)

    def on_train_batch_start(self, trainer: Trainer, model: nn.Module, batch: Any, batch_idx: int) -> None:
        """Keep the micro-batch, as other callbacks have left it."""
        self._note(trainer, trainer.global_step + 1, "batch", leaves(batch))

    def on_train_batch_end(
        self, trainer: Trainer, model: nn.Module, outputs: Mapping[str, Any], batch: Any, batch_idx: int
    ) -> None:
        """Keep the loss and, at a step's end, the weights."""
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
        """Keep the state of the optimizer and, of a fit that ended where it should, of the callbacks."""
        if trainer.stop_reason not in ("verified", "differs"):
            self.stop_reason = trainer.stop_reason
        now = plain_attributes(trainer.model)
        self.changed_attributes += _changed(self._attributes, now)
        if self._against is not None and self.num_steps_done != self._against.num_steps_done:
            return
        assert trainer.optimizer is not None, "it was fitted"
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
    """One that validates after each step, beside what the plan does.

    Args:
        num_steps: as of `Trace`.
        against: as of `Trace`.
        eval_steps: validation batches each time.

    Attributes:
        changed_weights: parameters and buffers that a validation has changed.
    """

    def __init__(self, num_steps: int, against: Trace, eval_steps: int) -> None:
        super().__init__(num_steps, against, with_validation=False)
        self._loop = ValidationLoop(eval_steps)
        self._val_dataloader: Any = None
        self.changed_weights: list[str] = []

    def on_fit_start(self, trainer: Trainer, train_dataloader: Any, val_dataloader: Any, loop: LoopCallback) -> None:
        """Keep what is to be validated."""
        super().on_fit_start(trainer, train_dataloader, val_dataloader, loop)
        self._val_dataloader = val_dataloader

    def on_train_batch_end(
        self, trainer: Trainer, model: nn.Module, outputs: Mapping[str, Any], batch: Any, batch_idx: int
    ) -> None:
        """Validate at a step's end, then see whether it has changed anything."""
        if trainer.global_step > self.num_steps_done:
            before = all_weights(model)
            trainer.validate(self._val_dataloader, loop=self._loop)
            changed = first_difference(trainer.global_step, "weights", before, all_weights(model))
            if changed is not None and changed.name not in self.changed_weights:
                self.changed_weights.append(changed.name)
        super().on_train_batch_end(trainer, model, outputs, batch, batch_idx)


class Gradients(Callback):
    """Keeps the gradients of each step and the samples that they are of.

    Compared with another run's, each step is made with those of the other, so that all steps begin at the same weights
    and none is judged by what an earlier one did.

    Args:
        num_steps: that are traced.
        against: of the run to compare with.

    Attributes:
        gradients: of each step, by parameter.
        samples: of each step, its micro-batches.
        has_drawn: whether the model has drawn random numbers of torch's, NumPy's or Python's.
        changed: what a forward changes in the model, and is no weight of it: buffers and plain attributes.
        num_rows: what micro-batches count as, where the model returns no ``num_items``.
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
        """Keep the samples."""
        self._batches.append(leaves(batch))

    def on_before_forward(self, trainer: Trainer, model: nn.Module, batch: Any, args: Any, kwargs: Any) -> None:
        """Note where the random streams are, and what the model holds."""
        self._streams = leaves(capture())
        self._state = _state_of(model)

    def on_after_forward(self, trainer: Trainer, model: nn.Module, outputs: Any, batch: Any) -> None:
        """Note what has changed."""
        self.has_drawn |= bool(_changed(self._streams, leaves(capture())))
        self.changed += [name for name in _changed(self._state, _state_of(model)) if name not in self.changed]
        if outputs.get("num_items") is None:
            self.num_rows.append(int(num_items(outputs, batch)))

    def on_before_optimizer_step(self, trainer: Trainer, model: nn.Module, optimizer: Optimizer) -> None:
        """Keep the gradients, weighted and not yet clipped."""
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
    """Copies of all parameters and buffers, those included that no checkpoint counts among the weights."""
    return leaves({**plain_names(model), **unsaved_buffers(model)})


def _state_of(model: nn.Module) -> dict[str, Any]:
    """Copies of buffers and plain attributes, but for the running statistics of batch norms."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    of_norms = {id(buffer) for module in norms for buffer in module.buffers()}
    buffers = {name: buffer for name, buffer in model.named_buffers() if id(buffer) not in of_norms}
    return {**leaves(buffers), **plain_attributes(model)}


def _changed(before: Leaves, after: Leaves) -> list[str]:
    """What both have, and is not the same."""
    return sorted(name for name in before.keys() & after.keys() if not is_same(before[name], after[name]))


def plain_attributes(model: nn.Module) -> dict[str, Any]:
    """Tensors, arrays and numbers in plain attributes of modules, which no checkpoint holds."""
    found: dict[str, Any] = {}
    for prefix, module in model.named_modules():
        for name, value in vars(module).items():
            if name not in _OF_TORCH and isinstance(value, Tensor | np.ndarray | int | float):
                found |= leaves(value, f"{prefix}.{name}" if prefix else name)
    return found
