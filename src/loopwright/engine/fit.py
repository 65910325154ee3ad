"""`FitLoop`: carries out a plan, stage by stage.

::

    for each stage of the plan:
        Train(start, stop):     train each step on its window (the micro-batches of the step)
        Save(step):             save a checkpoint
        Validate(step, name):   validate one dataloader from its beginning
        Downstream(step, name): call run_validation of one callback
        after Trainer.stop or a signal: save a checkpoint, and skip the remaining stages

A downstream validation is a validation that a callback runs in its hook ``run_validation``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from loopwright.engine.downstream import run_downstream
from loopwright.engine.feed import Feed
from loopwright.engine.hook_table import Hook, call_hooks, reporting
from loopwright.engine.parts import Parts
from loopwright.engine.step import Step
from loopwright.engine.user_errors import naming_dead_workers
from loopwright.engine.validate import ValidationSet, means_over_sets, validate
from loopwright.errors import SettingError, did_you_mean
from loopwright.loop import TrainingLoop
from loopwright.plan import Downstream, Plan, Save, Stage, Train, Validate, next_multiple
from loopwright.run_state import Interruption


@dataclass(frozen=True, slots=True, kw_only=True)
class FitInputs:
    """The inputs of one fit that are not in `Parts`.

    Attributes:
        loop: the training loop.
        plan: plan of the fit, beginning at the current step of the run.
        train_dataloader: training dataloader that the user gave; hooks receive this object.
        feed: object that reads the training dataloader, beginning with the next micro-batch of the run.
        val_dataloader: validation dataloaders that the user gave; hooks receive this object.
        val_sets: validation sets by their names in the plan.
        downstream: bound methods ``run_validation`` of the callbacks, by the name of the validation in the plan.
        save: function that saves a checkpoint and returns whether the checkpoint was saved; None: no checkpoints are
            saved.
        check_state: function that is called after the first step, and raises an error if a checkpoint cannot contain
            the current state; None: no check.
    """

    loop: TrainingLoop
    plan: Plan
    train_dataloader: Any
    feed: Feed
    val_dataloader: Any
    val_sets: Mapping[str, ValidationSet]
    downstream: Mapping[str, Hook]
    save: Callable[[], bool] | None
    check_state: Callable[[], None] | None = None


class FitLoop:
    """Carries out the plan of one fit.

    Args:
        parts: model, device, hooks and other objects of this run; see `Parts`.
        optimizer: optimizer of the run.
        inputs: inputs of this fit.
    """

    def __init__(self, parts: Parts, optimizer: Optimizer, inputs: FitInputs) -> None:
        self._parts = parts
        self._inputs = inputs
        self._state = parts.state
        self._stopping = parts.stopping
        self._step = Step(parts, optimizer, inputs.feed)
        self._clock = parts.clock
        self._check_state = inputs.check_state
        self._saved = (inputs.plan.position, inputs.plan.num_validated)  # result of `_reached` at the last save

    @naming_dead_workers()
    def run(self) -> None:
        """Carry out the plan. If the fit is stopped, save the last completed step and skip the remaining stages."""
        self._clock.begin(self._state.global_step)
        try:
            for (_, is_validation), stages in groupby(self._inputs.plan, key=self._place):
                if self._stopping.decide():
                    break
                if is_validation:
                    self._validation_round(stages)
                else:
                    self._train_loop(stages)
                if self._stopping.decide():
                    break  # otherwise groupby would first generate the remaining stages of this group
        except Interruption:
            pass  # the fit was interrupted in a validation; a resumed run repeats this validation
        self._stopping.leave_at_once()
        if self._stopping.decide() and self._is_unsaved():
            self._save()

    def _is_unsaved(self) -> bool:
        """Return whether a stopped fit must save a checkpoint of the current step.

        The last checkpoint may be of the current step, but from before the validations of this step. If a callback
        stopped the fit after these validations, the step must be saved again, because a resume needs the new state of
        the callback. An interrupted fit does not save the step again, because the process may be killed soon.
        """
        state = self._state
        if self._saved[0] != state.global_step:
            return True
        return not state.is_interrupted and self._saved != self._reached()

    def _reached(self) -> tuple[int, int]:
        """Return the current step, and the number of completed validations after this step."""
        step, num_validated = self._state.validated
        return self._state.global_step, num_validated if step == self._state.global_step else 0

    def _place(self, stage: Stage) -> tuple[int, bool]:
        """Return (loop_idx, is_validation) of a stage. A validation has the index of the preceding train loop.

        The save and the validations before the first step have the index -1. The save is then in the validation group.
        """
        step = stage.start if isinstance(stage, Train) else stage.step - 1
        if step < self._inputs.plan.start_step:
            return -1, True
        return self._inputs.plan.loop_position(step)[0], isinstance(stage, Validate | Downstream)

    def _train_loop(self, stages: Iterable[Stage]) -> None:
        parts, inputs = self._parts, self._inputs
        trainer, hooks, loop = parts.trainer, parts.hooks, inputs.loop
        loop_idx, batch_idx = inputs.plan.loop_position(self._state.global_step)
        self._state.batch_idx = None
        with ExitStack() as stack:
            stack.enter_context(reporting(hooks["on_train_exception"], trainer))
            call_hooks(hooks["on_enter_train"], trainer, stack, inputs.train_dataloader, loop, loop_idx)
            call_hooks(hooks["on_train_start"], trainer, parts.model, inputs.train_dataloader, loop, loop_idx)
            for stage in stages:
                if self._stopping.decide():
                    break
                if isinstance(stage, Train):
                    batch_idx = self._train(stage, batch_idx)
                elif isinstance(stage, Save):
                    self._save()
            call_hooks(hooks["on_train_end"], trainer, parts.model, loop, loop_idx)

    def _train(self, stage: Train, batch_idx: int) -> int:
        """Train the steps of ``stage``. Return the index of the next micro-batch in the current train loop."""
        state, run, log, stopping = self._state, self._step.run, self._log, self._stopping
        every, last = self._parts.log_every_n_steps, self._inputs.plan.stop_step
        next_log = next_multiple(stage.start, every)
        strategy = self._parts.strategy
        self._clock.start()
        for window in self._inputs.plan.windows(stage.start, stage.stop):
            step = state.global_step + 1
            state.is_log_step = step in (next_log, last)
            batch_idx += run(window.num_micro_batches, batch_idx, log if state.is_log_step else None)
            if strategy.is_compile_pending:
                strategy.is_compile_pending = False
                self._parts.log.log_timing({"train/compile_seconds": self._clock.leave_out(step)}, step)
            if state.is_log_step:
                next_log = next_multiple(step, every)
                self._log_timing()
            if self._check_state is not None:  # the optimizer creates its state in the first step
                self._check_state()
                self._check_state = None
            if stopping.is_asked and stopping.decide():
                break
        self._clock.stop()
        return batch_idx

    def _log(self, values: Mapping[str, Tensor | float]) -> None:
        norm = self._step.update.gradient_norm
        if norm is not None and not self._state.is_update_skipped:  # a skipped update leaves the norm of an older step
            values = {"gradient_norm": norm, **values}
        self._parts.log.log({f"train/{key}": value for key, value in values.items()}, self._state.global_step)

    def _log_timing(self) -> None:
        """Log step times and peak memory. Call this method after a step's metrics were copied from the device."""
        parts, step = self._parts, self._state.global_step
        memory = {"peak_memory_bytes": parts.device.peak_memory_bytes()}
        parts.log.log_timing({**self._clock.lap(step), **memory}, step)

    def _save(self) -> None:
        if self._inputs.save is not None and self._inputs.save():
            self._saved = self._reached()

    def _validation_round(self, stages: Iterable[Stage]) -> None:
        parts, inputs, state = self._parts, self._inputs, self._state
        val_loop = inputs.loop.val_loop
        with ExitStack() as stack, parts.log.collecting() as metrics:
            enter = parts.hooks["on_enter_validate_all"]
            call_hooks(enter, parts.trainer, stack, inputs.val_dataloader, val_loop, [None])
            _, num_before = self._reached()
            if num_before:  # this round continues an interrupted round, whose metrics are in `latest`
                metrics |= parts.log.latest
            num_done = num_before
            for stage in stages:
                if isinstance(stage, Save):
                    self._save()
                    continue
                self._stopping.decide_in_validation()
                self._validate(stage)
                num_done += 1
                state.validated = (state.global_step, num_done)
            if means := means_over_sets(metrics, [val_set.name for val_set in inputs.plan.val]):
                parts.log.log(means, state.global_step)
            if state.global_step > inputs.plan.start_step:
                self._step_monitored(metrics)
        parts.log.refuse_missing_monitor()

    def _validate(self, stage: Stage) -> None:
        parts, inputs, began = self._parts, self._inputs, time.perf_counter()
        step = parts.state.global_step
        if isinstance(stage, Validate):
            validate(parts, inputs.loop.val_loop, inputs.val_sets[stage.name], stage.num_batches)
        else:
            assert isinstance(stage, Downstream), "a round has no other stages"
            loop_idx, is_last = inputs.plan.loop_position(step)[0] - 1, step == inputs.plan.stop_step
            run_downstream(parts, stage.name, inputs.downstream[stage.name], loop_idx, is_last=is_last)
        parts.log.log_timing({f"{stage.name}/seconds": time.perf_counter() - began}, step)

    def _step_monitored(self, metrics: Mapping[str, float]) -> None:
        for scheduler, monitor in self._parts.monitored:
            if monitor not in metrics:
                hint = did_you_mean(monitor, metrics)
                raise SettingError(
                    "monitor", f"={monitor!r}: expected a metric of the validation: {', '.join(metrics)}.{hint}"
                )
            self._step.update.step_scheduler(scheduler, metrics[monitor])
