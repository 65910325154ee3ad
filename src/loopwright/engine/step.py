"""`Step`: runs the forward and the backward of each micro-batch of a window, and then updates the parameters.

A window is the sequence of micro-batches of one step. ::

    for each micro-batch of the window:
        outputs = model(batch)
        outputs["loss"].backward()                     # in a window of one micro-batch
        (outputs["loss"] * num_items).backward()       # in a longer window: gradients of the sum over items
    divide the gradients by the items of the window    # in a longer window
    clip, optimizer.step(), set the gradients to None, step the schedulers

Then the metrics of each micro-batch are added to the mean since the last log step; see `TrainMean`.

A micro-batch with ``num_items=0`` has no backward and no metrics. If a whole window has no items, its update is
skipped. If ``num_items`` is on an accelerator, its value is not read, so the update is not skipped. The gradients are
then divided by ``num_items``, or by 1 if ``num_items`` is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from loopwright.engine.feed import Feed
from loopwright.engine.forward import Forward
from loopwright.engine.parts import Parts
from loopwright.engine.train_mean import TrainMean
from loopwright.engine.update import Update
from loopwright.engine.user_errors import check_has_gradient, note_model
from loopwright.engine.weighting import Weigher, given_items

Log = Callable[[Mapping[str, float]], None]  # function that receives the means since the last log step, by name


class Step:
    """Trains one step in each call of `run`. Each fit builds one `Step`, which looks up the hooks and settings once.

    Args:
        parts: objects of this run, including the hook methods of its callbacks.
        optimizer: optimizer of the run.
        feed: object that reads the training micro-batches.
    """

    def __init__(self, parts: Parts, optimizer: Optimizer, feed: Feed) -> None:
        hooks = parts.hooks
        self._trainer, self._model = parts.trainer, parts.model
        self._state, self._feed = parts.state, feed
        self._scaling = parts.scaling
        self._leave_at_once = parts.stopping.leave_at_once
        self._metric_log = parts.log
        self._weigher = Weigher(feed.source, parts.log.warned)
        self._sums = parts.log.train_sums
        self._mean = TrainMean(self._sums, feed.source, self._weigher, parts.device.sum_dtype)
        self._move = parts.device.move if parts.device.changes_batches else None
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
                last window of a pass may have fewer micro-batches.
            batch_idx: index of the first micro-batch of this step, counted from 0 after each round of validations.
            log: function that receives the means of the metrics since the last log step. It is called before
                ``on_train_batch_end``. None: this step is not a log step.

        Returns:
            The number of micro-batches that were read.
        """
        state, feed = self._state, self._feed
        state.window_start = (state.pass_index, state.micro_batch_index)
        state.is_inside_window, state.is_updated, state.is_update_skipped = True, False, False
        batch = feed.take()
        if num_micro_batches == 1 or not feed.has_more():
            self._micro_batch(batch, batch_idx, None, True, log)
            return 1
        window = _Window()
        num_taken = 1
        while num_taken < num_micro_batches and feed.has_more():
            self._micro_batch(batch, batch_idx + num_taken - 1, window, False, None)
            self._leave_at_once()
            batch = feed.take()
            num_taken += 1
        self._micro_batch(batch, batch_idx + num_taken - 1, window, True, log)
        return num_taken

    def _micro_batch(self, batch: Any, batch_idx: int, window: _Window | None, is_last: bool, log: Log | None) -> None:
        trainer, model, state = self._trainer, self._model, self._state
        state.batch_idx, state.is_last_micro_batch = batch_idx, is_last
        if self._move is not None:
            batch = self._move(batch)
        for hook in self._batch_start:
            hook(trainer, model, batch, batch_idx)
        for hook in self._step_start:
            hook(trainer, model, batch)
        outputs = self._forward(batch)
        if window is not None:
            weight: float | Tensor | None = self._weigher.known(outputs, batch, self._feed.index)
        else:
            has_count = "num_items" in outputs and outputs["num_items"] is not None
            weight = given_items(outputs) if has_count else None
        is_empty = weight is not None and not isinstance(weight, Tensor) and weight == 0
        if not is_empty:
            for hook in self._before_backward:
                hook(trainer, model, outputs)
            loss = outputs["loss"]
            try:
                total = loss if window is None else loss * weight
                if self._scaling is not None:
                    total = self._scaling.scale(total, None if window is None else weight)
                total.backward()
            except Exception as error:
                check_has_gradient(loss)
                note_model(error, model, state, "the backward of model")
                raise
            for hook in self._after_backward:
                hook(trainer, model, outputs)
        if window is not None and weight is not None:
            window.num_items = window.num_items + weight
        if is_last:
            self.update(window.num_items if window is not None else 0 if is_empty else None)
        for hook in self._step_end:
            hook(trainer, model, outputs, batch)
        if not is_empty:
            self._mean.add(outputs, batch, self._feed.index, weight)
        if is_last:
            state.global_step += 1
            state.is_inside_window = False
            if state.is_update_skipped:
                self._metric_log.count_skipped_update(state.global_step)
            if log is not None:
                log(self._sums.take_means())
        for hook in self._batch_end:
            hook(trainer, model, outputs, batch, batch_idx)


@dataclass(slots=True)
class _Window:
    """Counts the items in the micro-batches of a window."""

    num_items: float | Tensor = 0
