"""`Update`: divides and clips the gradients of a window, and steps the optimizer and the schedulers.

A window is the sequence of micro-batches of one step.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from loopwright.engine.added_groups import adopt_groups
from loopwright.engine.parts import Parts

_log = logging.getLogger("loopwright")


class Update:
    """Makes one update of the parameters from the gradients of a window.

    Attributes:
        gradient_norm: norm of the gradients of the last update before clipping, on their device; None: not computed.

    Args:
        parts: model, device, hooks and other objects of this run; see `Parts`.
        optimizer: optimizer of the run.
    """

    def __init__(self, parts: Parts, optimizer: Optimizer) -> None:
        hooks = parts.hooks
        self._trainer, self._model, self._optimizer = parts.trainer, parts.model, optimizer
        self._state = parts.state
        self._schedulers = parts.schedulers
        self._num_groups = 0  # number of parameter groups at the last update
        self._precision = parts.precision
        self.gradient_norm: Tensor | None = None
        self._is_clipping = parts.precision.is_clipping
        self._scaling = parts.scaling
        self._warned = parts.log.warned
        self._before_step = hooks["on_before_optimizer_step"]
        self._after_step = hooks["on_after_optimizer_step"]
        self._before_zero = hooks["on_before_optimizer_zero_grad"]
        self._after_zero = hooks["on_after_optimizer_zero_grad"]
        self._before_scheduler = hooks["on_before_scheduler_step"]
        self._after_scheduler = hooks["on_after_scheduler_step"]
        # `Optimizer.zero_grad` makes 35 of the 225 function calls of the smallest step, so this class sets the
        # gradients to None itself. If the optimizer overrides zero_grad, the method of the optimizer is called.
        self._drops_plainly = type(optimizer).zero_grad is Optimizer.zero_grad and "zero_grad" not in vars(optimizer)

    def __call__(self, num_items: float | Tensor | None) -> None:
        """Update the parameters.

        Args:
            num_items: number of items in the window. The gradients are sums over these items, and are divided by
                ``num_items``. None: the window is one micro-batch, and the gradients are means already.
        """
        trainer, model, optimizer, state = self._trainer, self._model, self._optimizer, self._state
        if num_items is not None and not isinstance(num_items, Tensor) and num_items == 0:
            state.is_update_skipped = True
            self._warn_of_no_items()
        else:
            if self._scaling is not None:
                self._scaling.unscale(optimizer)
            if num_items is not None:
                self._divide_gradients(num_items)
            for hook in self._before_step:
                hook(trainer, model, optimizer)
            if state.is_update_skipped:  # set by `Trainer.skip_update`
                if self._scaling is not None:
                    self._scaling.skip()
            else:
                if self._schedulers and len(optimizer.param_groups) != self._num_groups:
                    adopt_groups(optimizer, self._schedulers)
                    self._num_groups = len(optimizer.param_groups)
                if self._is_clipping:
                    parameters = [p for group in optimizer.param_groups for p in group["params"]]
                    self.gradient_norm = self._precision.clip(parameters)
                if self._scaling is None:
                    optimizer.step()
                else:
                    state.is_update_skipped = not self._scaling.step(optimizer)
        state.is_updated = True  # also after a skipped update, because the step is not repeated
        if not state.is_update_skipped:
            for hook in self._after_step:
                hook(trainer, model, optimizer)
        for hook in self._before_zero:
            hook(trainer, model, optimizer)
        if self._drops_plainly:
            for group in optimizer.param_groups:  # not cached, because add_param_group may add a group
                for parameter in group["params"]:
                    parameter.grad = None
        else:
            optimizer.zero_grad()
        for hook in self._after_zero:
            hook(trainer, model, optimizer)
        if not state.is_update_skipped:
            for scheduler in self._schedulers:
                self.step_scheduler(scheduler)

    def _warn_of_no_items(self) -> None:
        if "num_items" not in self._warned:
            self._warned.add("num_items")
            _log.warning(
                "Step %d has no items (num_items=0), so its update is skipped; the metric train/skipped_updates counts "
                "all such steps.",
                self._state.global_step + 1,
            )

    def step_scheduler(self, scheduler: Any, *metric: float) -> None:
        """Step one scheduler, and call the hooks before and after. ``metric`` is passed to the scheduler if given."""
        trainer, model, optimizer = self._trainer, self._model, self._optimizer
        for hook in self._before_scheduler:
            hook(trainer, model, optimizer, scheduler)
        scheduler.step(*metric)
        for hook in self._after_scheduler:
            hook(trainer, model, optimizer, scheduler)

    def _divide_gradients(self, num_items: float | Tensor) -> None:
        gradients = [p.grad for group in self._optimizer.param_groups for p in group["params"] if p.grad is not None]
        if gradients:
            # If num_items is a tensor, it is on an accelerator. Its value is not read and may be 0.
            torch._foreach_div_(gradients, num_items.clamp(min=1) if isinstance(num_items, Tensor) else num_items)
