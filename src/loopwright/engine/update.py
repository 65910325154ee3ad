"""`Update`: divides and clips the gradients of a window, and steps the optimizer and the schedulers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from loopwright.engine.parts import Parts
from loopwright.errors import DataError


class Update:
    """Makes one update of the parameters from the gradients of a window.

    Args:
        parts: objects of this run, with hooks bound.
        optimizer: optimizer of the run.
    """

    def __init__(self, parts: Parts, optimizer: Optimizer) -> None:
        hooks = parts.hooks
        self._trainer, self._model, self._optimizer = parts.trainer, parts.model, optimizer
        self._state = parts.state
        self._schedulers = parts.schedulers
        self._precision = parts.precision
        self._is_clipping = parts.precision.is_clipping
        self._scaling = parts.scaling
        self._before_step = hooks["on_before_optimizer_step"]
        self._after_step = hooks["on_after_optimizer_step"]
        self._before_zero = hooks["on_before_optimizer_zero_grad"]
        self._after_zero = hooks["on_after_optimizer_zero_grad"]
        self._before_scheduler = hooks["on_before_scheduler_step"]
        self._after_scheduler = hooks["on_after_scheduler_step"]
        # If this class sets the gradients to None itself, 35 of the 225 function calls of the smallest step are saved.
        # If an optimizer overrides zero_grad, its method is called instead.
        self._drops_plainly = type(optimizer).zero_grad is Optimizer.zero_grad and "zero_grad" not in vars(optimizer)

    def __call__(self, num_items: int | Tensor | None) -> None:
        """Update the parameters.

        Args:
            num_items: number of items in the whole window. The gradients, which are sums over these items, are divided
                by this number. None: the window is one micro-batch, and the gradients are means already.
        """
        trainer, model, optimizer = self._trainer, self._model, self._optimizer
        if self._scaling is not None:
            self._scaling.unscale(optimizer)
        if num_items is not None:
            self._divide_gradients(num_items)
        for hook in self._before_step:
            hook(trainer, model, optimizer)
        if self._is_clipping:
            self._precision.clip([p for group in optimizer.param_groups for p in group["params"]])
        if self._scaling is None:
            optimizer.step()
            is_made = True
        else:
            is_made = self._scaling.step(optimizer)
        self._state.is_updated = True  # also True after a skipped update, as the step is not repeated
        if is_made:
            for hook in self._after_step:
                hook(trainer, model, optimizer)
        for hook in self._before_zero:
            hook(trainer, model, optimizer)
        if self._drops_plainly:
            for group in optimizer.param_groups:  # not cached, as add_param_group may add a group
                for parameter in group["params"]:
                    parameter.grad = None
        else:
            optimizer.zero_grad()
        for hook in self._after_zero:
            hook(trainer, model, optimizer)
        if is_made:
            for scheduler in self._schedulers:
                self.step_scheduler(scheduler)

    def step_scheduler(self, scheduler: Any, *metric: float) -> None:
        """Step one scheduler, with its metric if it needs one."""
        trainer, model, optimizer = self._trainer, self._model, self._optimizer
        for hook in self._before_scheduler:
            hook(trainer, model, optimizer, scheduler)
        scheduler.step(*metric)
        for hook in self._after_scheduler:
            hook(trainer, model, optimizer, scheduler)

    def _divide_gradients(self, num_items: int | Tensor) -> None:
        if not isinstance(num_items, Tensor) and num_items <= 0:
            raise DataError(
                f"num_items: the micro-batches of one step have {num_items} items in total; expected 1 or more."
            )
        gradients = [p.grad for group in self._optimizer.param_groups for p in group["params"] if p.grad is not None]
        if gradients:
            torch._foreach_div_(gradients, num_items)
