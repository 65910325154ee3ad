"""`Step`: runs forward and backward for each micro-batch of a window, then updates the parameters.

A window is the sequence of micro-batches of one step. ::

    for each micro-batch of the window:
        outputs = model(batch)
        outputs["loss"].backward()                     # in a window of one micro-batch
        (outputs["loss"] * num_items).backward()       # in a longer window: gradients of the sum over items
    divide the gradients by the items of the window    # in a longer window
    clip, optimizer.step(), set the gradients to None, step the schedulers
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

# Function that receives the values of a step by name. For a window of one micro-batch, tensors are on the device.
Log = Callable[[Mapping[str, Tensor | float]], None]


class Step:
    """Trains one step in each call of `run`. One object is built per fit, so hooks and settings are looked up once.

    Args:
        parts: objects of this run, with hooks bound.
        optimizer: optimizer of the run.
        feed: object that reads the training micro-batches.
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
            num_micro_batches: number of micro-batches in the window. If the length of the dataloader is unknown, the
                last window of a pass may have fewer.
            batch_idx: index of the first micro-batch of this step, counted from 0 after each round of validations.
            log: function that is called with the values of the step before ``on_train_batch_end``; None: the values
                are not logged.

        Returns:
            The number of micro-batches that were read.
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
                total = loss * weight if isinstance(weight, Tensor) or weight else None  # no backward for 0 items
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
    """Sums the numbers of items and the metrics of the micro-batches of one window."""

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
