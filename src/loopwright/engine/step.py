"""`Step`: runs the forward and the backward of each micro-batch of a window, and then updates the parameters.

A window is the sequence of micro-batches of one step. ::

    for each micro-batch of the window:
        outputs = model(batch)
        outputs["loss"].backward()                     # in a window of one micro-batch
        (outputs["loss"] * num_items).backward()       # in a longer window: gradients are sums over items
    divide the gradients by the number of items        # in a longer window
    clip, optimizer.step(), set the gradients to None, step the schedulers

The metrics of each micro-batch are then added to the means since the last log step; see `TrainMean`.

If several processes train together, each process computes its rows of every micro-batch. The gradients of a window are
averaged over the processes in the last backward of the window. The averages are divided by N / W, where N is the number
of items of the window in all W processes. A process without a row in a micro-batch computes another batch with weight
0; see `Padding`.

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

from loopwright.engine.agreement import Agreement
from loopwright.engine.feed import Feed
from loopwright.engine.forward import Forward
from loopwright.engine.parts import Parts
from loopwright.engine.splitting import Splitting
from loopwright.engine.train_mean import TrainMean
from loopwright.engine.update import Update
from loopwright.engine.user_errors import check_has_gradient, note_model
from loopwright.engine.weighting import Weigher, given_items
from loopwright.protocols import Padding

Log = Callable[[Mapping[str, float]], None]  # function that receives the means since the last log step, by name


class Step:
    """Trains one step in each call of `run`. Each fit builds one `Step`, which looks up the hooks and settings once.

    Args:
        parts: model, device, hooks and other objects of this run; see `Parts`.
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
        self._strategy, self._agreement = parts.strategy, parts.agreement
        self._splitting = Splitting(parts, self._weigher) if parts.strategy.splits_on_oom else None
        self.update = Update(parts, optimizer)
        # A bound method would refer to this object, which would be a reference cycle.
        self._train = Step._micro_batch
        if parts.agreement is not None:
            self._train = Step._ranked_micro_batch
        if self._splitting is not None:
            self._train = Step._split_micro_batch
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
        if self._agreement is not None:
            self._strategy.begin_window()
            with self._strategy.synchronised(False):
                batch, window, num_taken = self._run_but_last(feed.take(), _Window(), num_micro_batches, batch_idx)
            with self._strategy.synchronised(self._splitting is None):
                self._train(self, batch, batch_idx + num_taken - 1, window, True, log)
            return num_taken
        batch = feed.take()
        if self._splitting is None and (num_micro_batches == 1 or not feed.has_more()):
            self._train(self, batch, batch_idx, None, True, log)
            return 1
        batch, window, num_taken = self._run_but_last(batch, _Window(), num_micro_batches, batch_idx)
        self._train(self, batch, batch_idx + num_taken - 1, window, True, log)
        return num_taken

    def _run_but_last(
        self, batch: Any, window: _Window, num_micro_batches: int, batch_idx: int
    ) -> tuple[Any, _Window, int]:
        """Train the micro-batches of a window except the last micro-batch.

        Returns:
            The last micro-batch, ``window``, and the number of micro-batches that were read.
        """
        num_taken = 1
        while num_taken < num_micro_batches and self._feed.has_more():
            self._train(self, batch, batch_idx + num_taken - 1, window, False, None)
            self._leave_at_once()
            batch = self._feed.take()
            num_taken += 1
        return batch, window, num_taken

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
        if state.is_padding:
            weight: float | Tensor | None = 0
        elif window is not None:
            weight = self._weigher.known(outputs, batch, self._feed.index)
        else:
            has_count = "num_items" in outputs and outputs["num_items"] is not None
            weight = given_items(outputs) if has_count else None
        is_empty = weight is not None and not isinstance(weight, Tensor) and weight == 0
        is_empty = _has_no_items(outputs) if state.is_padding else is_empty
        if window is not None and weight is not None:
            window.num_items = window.num_items + weight
            if self._agreement is not None:
                self._agree(self._agreement, weight, window, is_last)
        if is_empty:
            self._strategy.take_part(outputs["loss"])
        else:
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
        if is_last:
            if self._agreement is not None:
                self.update(self._agreement.end())
            else:
                self.update(window.num_items if window is not None else 0 if is_empty else None)
        for hook in self._step_end:
            hook(trainer, model, outputs, batch)
        if not is_empty and not state.is_padding:
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

    def _agree(self, agreement: Agreement, weight: float | Tensor, window: _Window, is_last: bool) -> None:
        """Choose the first scale of the loss if it is not chosen yet. Start the sum of items if ``is_last``."""
        if self._scaling is not None and self._scaling.is_first_scale_open:
            self._scaling.choose_first_scale(agreement.total(weight))
        if is_last:
            agreement.begin(window.num_items)

    def _ranked_micro_batch(
        self, batch: Any, batch_idx: int, window: _Window | None, is_last: bool, log: Log | None
    ) -> None:
        """Train a micro-batch in one of several processes. This process may have no row of the micro-batch."""
        self._state.is_padding = type(batch) is Padding
        if self._state.is_padding:
            batch = batch.batch
        if batch is None:
            self._state.batch_idx, self._state.is_last_micro_batch = batch_idx, is_last
            self._take_part(window, is_last, log)
            self._end_without_batch(batch_idx)
        else:
            self._micro_batch(batch, batch_idx, window, is_last, log)

    def _take_part(self, window: _Window | None, is_last: bool, log: Log | None) -> None:
        """Exchange sums in a micro-batch for which this process has no batch. No hooks are called."""
        assert window is not None and self._agreement is not None, "a run in one process has all batches"
        self._agree(self._agreement, 0, window, is_last)
        self._strategy.take_part(None)
        if is_last:
            self.update(self._agreement.end())
            self._complete(log)

    def _end_without_batch(self, batch_idx: int) -> None:
        """Call the hook at the end of a micro-batch, in which callbacks log and communicate, without a batch."""
        for hook in self._batch_end:
            hook(self._trainer, self._model, {}, None, batch_idx)

    def _split_micro_batch(
        self, batch: Any, batch_idx: int, window: _Window | None, is_last: bool, log: Log | None
    ) -> None:
        """Train a micro-batch like `_micro_batch`, and split it after an out-of-memory error.

        If there are several processes, gradients are averaged after the last backward of the window and not during this
        backward, because a process may repeat a backward.
        """
        splitting = self._splitting
        assert splitting is not None and window is not None, "run creates a window for a split micro-batch"
        trainer, model, state, agreement = self._trainer, self._model, self._state, self._agreement
        state.batch_idx, state.is_last_micro_batch = batch_idx, is_last
        state.is_padding = is_padding = type(batch) is Padding
        batch = batch.batch if is_padding else batch
        if self._scaling is not None and self._scaling.is_first_scale_open and agreement is not None:
            num_samples = None if is_padding else self._feed.source.num_samples(self._feed.index)
            self._scaling.choose_first_scale(agreement.total(num_samples or 0))
        if batch is not None:
            if self._move is not None:
                batch = self._move(batch)
            for hook in self._batch_start:
                hook(trainer, model, batch, batch_idx)
            for hook in self._step_start:
                hook(trainer, model, batch)
            outputs, weight = splitting.run(batch, self._feed.index, is_padding=is_padding)
            window.num_items = window.num_items + weight
        if is_last and agreement is not None:
            agreement.begin(window.num_items)
            with self._strategy.synchronised(True):
                self._strategy.take_part(None)
            self.update(agreement.end())
        elif is_last:
            self.update(window.num_items)
        if batch is not None:
            for hook in self._step_end:
                hook(trainer, model, outputs, batch)
            if not is_padding:
                self._mean.add(outputs, batch, self._feed.index, weight)
        if is_last:
            self._complete(log)
        if batch is None:
            self._end_without_batch(batch_idx)
        else:
            for hook in self._batch_end:
                hook(trainer, model, outputs, batch, batch_idx)

    def _complete(self, log: Log | None) -> None:
        """Count a step. If ``log`` is not None, pass the means of the metrics to ``log``."""
        state = self._state
        state.global_step += 1
        state.is_inside_window = False
        if state.is_update_skipped:
            self._metric_log.count_skipped_update(state.global_step)
        if log is not None:
            log(self._sums.take_means())


def _has_no_items(outputs: Mapping[str, Any]) -> bool:
    """Return whether the outputs have no items. Their loss may be NaN, and NaN times the weight of a padding is NaN."""
    items = None if outputs.get("num_items") is None else given_items(outputs)
    return items is not None and not isinstance(items, Tensor) and items == 0


@dataclass(slots=True)
class _Window:
    """Counts the items in the micro-batches of a window."""

    num_items: float | Tensor = 0
