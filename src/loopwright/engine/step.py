"""One step: the forwards and backwards of a window of micro-batches, and the update that closes it.

::

    for each micro-batch of the window:
        outputs = model(batch)
        outputs["loss"].backward()                     # a window of one
        (outputs["loss"] * num_items).backward()       # a longer one: gradients of the sum over items
    divide the gradients by the items of the window    # a longer one
    clip, optimizer.step(), drop the gradients, schedulers
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from loopwright.engine.feed import Feed
from loopwright.engine.forward import Forward
from loopwright.engine.parts import Parts
from loopwright.engine.update import Update
from loopwright.engine.user_errors import check_has_gradient, note_model
from loopwright.engine.weighting import WeightedMean, num_items, scalars

# Takes the values of a step, by name; those of a window of one are still on the device.
Log = Callable[[Mapping[str, Tensor | float]], None]


class Step:
    """Carries out steps; built once per fit, so that a step looks nothing up.

    Args:
        parts: of this run, with its hooks bound.
        optimizer: of this run.
        feed: where micro-batches come from.
    """

    def __init__(self, parts: Parts, optimizer: Optimizer, feed: Feed) -> None:
        hooks = parts.hooks
        self._trainer, self._model = parts.trainer, parts.model
        self._state, self._feed = parts.state, feed
        self._scaling = parts.scaling
        self._leave_at_once = parts.stopping.leave_at_once
        self._sum_dtype = parts.device.sum_dtype
        self._move = None if parts.device.is_host else parts.device.move
        self._forward = Forward(parts, parts.strategy.call)
        self.update = Update(parts, optimizer)
        self._batch_start = hooks["on_train_batch_start"]
        self._batch_end = hooks["on_train_batch_end"]
        self._step_start = hooks["on_train_step_start"]
        self._step_end = hooks["on_train_step_end"]
        self._before_backward = hooks["on_before_backward"]
        self._after_backward = hooks["on_after_backward"]

    def run(self, num_micro_batches: int, batch_idx: int, log: Log | None) -> int:
        """Train one step.

        Args:
            num_micro_batches: of the window; fewer are taken where a dataloader of unknown length ends.
            batch_idx: number of the first of them in its train loop.
            log: called with the step's values, still on the device, before ``on_train_batch_end``; None: no log step.

        Returns:
            The number of micro-batches taken.
        """
        state, feed = self._state, self._feed
        state.window_start = (state.pass_index, state.micro_batch_index)
        state.is_inside_window, state.is_updated = True, False
        batch = feed.take()
        if num_micro_batches == 1 or not feed.has_more():
            self._micro_batch(batch, batch_idx, None, True, log)
            return 1
        window = _Window(WeightedMean(self._sum_dtype) if log is not None else None)
        num_taken = 1
        while num_taken < num_micro_batches and feed.has_more():
            self._micro_batch(batch, batch_idx + num_taken - 1, window, False, None)
            self._leave_at_once()
            batch = feed.take()
            num_taken += 1
        self._micro_batch(batch, batch_idx + num_taken - 1, window, True, log)
        return num_taken

    def _micro_batch(self, batch: Any, batch_idx: int, window: _Window | None, is_last: bool, log: Log | None) -> None:
        trainer, model = self._trainer, self._model
        if self._move is not None:
            batch = self._move(batch)
        for hook in self._batch_start:
            hook(trainer, model, batch, batch_idx)
        for hook in self._step_start:
            hook(trainer, model, batch)
        outputs = self._forward(batch)
        for hook in self._before_backward:
            hook(trainer, model, outputs)
        loss, weight = outputs["loss"], 1 if window is None else num_items(outputs, batch)
        try:
            if window is not None:
                total = loss * weight if isinstance(weight, Tensor) or weight else None  # no items, no gradient
            else:
                total = loss
            if total is not None:
                (total if self._scaling is None else self._scaling.scale(total)).backward()
        except Exception as error:
            check_has_gradient(loss)
            note_model(error, model, self._state, "the backward of model")
            raise
        if window is not None:
            window.add(outputs, weight)
        for hook in self._after_backward:
            hook(trainer, model, outputs)
        if is_last:
            self.update(None if window is None else window.num_items)
        for hook in self._step_end:
            hook(trainer, model, outputs, batch)
        if is_last:
            self._state.global_step += 1
            self._state.is_inside_window = False
            if log is not None:
                log(scalars(outputs) if window is None else window.mean())
        for hook in self._batch_end:
            hook(trainer, model, outputs, batch, batch_idx)


class _Window:
    """What the micro-batches of one window add up to."""

    def __init__(self, values: WeightedMean | None) -> None:
        self.num_items: int | Tensor = 0
        self._values = values

    def add(self, outputs: dict[str, Any], weight: int | Tensor) -> None:
        self.num_items = self.num_items + weight
        if self._values is not None:
            self._values.add(scalars(outputs), weight)

    def mean(self) -> dict[str, float]:
        assert self._values is not None, "a window that is logged keeps its values"
        return self._values.result()
