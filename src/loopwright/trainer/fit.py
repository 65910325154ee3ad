"""`Fitting`, which plans and runs the fits of one trainer."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Literal

from loopwright.checkpoint import Checkpoint, Checkpointing
from loopwright.data import as_source
from loopwright.engine.downstream import downstream_validations
from loopwright.engine.dry_pass import can_try, try_validation
from loopwright.engine.feed import Feed
from loopwright.engine.fit import FitInputs, FitLoop
from loopwright.engine.hook_table import call_hooks, reporting
from loopwright.engine.modes import training
from loopwright.engine.parts import Parts
from loopwright.loop import TrainingLoop
from loopwright.plan import Plan, eval_steps_note, plan_extensions, plan_fit
from loopwright.protocols import BatchSource
from loopwright.run_state import FitResult, RunState
from loopwright.trainer.arguments import SchedulerSpec, build_scheduler, check_monitored, takes_total_steps
from loopwright.trainer.dataloaders import name_dataloaders
from loopwright.trainer.finished import with_last_validations
from loopwright.trainer.later_end import later_end_lines
from loopwright.trainer.monitors import check_monitors, check_tried_metrics, warn_of_missing_monitor
from loopwright.trainer.ranked_saving import Saver
from loopwright.trainer.resume import (
    changed_settings,
    rest_of_run,
    resume_run,
    saved_groups_added,
    saved_plan,
    saved_seed,
)
from loopwright.trainer.scheduler_epochs import changed_epochs
from loopwright.trainer.signals import StopSignals
from loopwright.trainer.start import Start, load_initial
from loopwright.trainer.stopped import nothing_to_train
from loopwright.trainer.validate import open_val_sets

_log = logging.getLogger("loopwright")


class Fitting:
    """Plans and runs the fits of one trainer.

    Args:
        parts: objects of the trainer.
        checkpoint: settings of the checkpoints; None: no checkpoints are saved.
        schedulers: pairs of a callable that builds a scheduler, and the monitored metric or None. The callables are
            called in the first fit, because a callable may need the number of steps of the first fit.
        saver: object that saves the checkpoints; None: no checkpoints are saved.
    """

    def __init__(
        self,
        parts: Parts,
        checkpoint: Checkpointing | None,
        schedulers: list[SchedulerSpec],
        saver: Saver | None,
    ) -> None:
        self._parts = parts
        self._checkpoint = checkpoint
        self._scheduler_specs = schedulers
        self._saver = saver
        self._train_dataloader: Any = None
        self.feed: Feed | None = None  # feed of the current or last fit
        self._schedule_stop_step: int | None = None  # stop_step of the plan for which the schedulers were built
        self._warned: set[str] = set()
        self._metric_warnings: list[str] = []
        self._extensions: list[str] = []  # differences between the plan of a resume and the saved plan, not yet logged
        self.is_running = False
        self.plan: Plan | None = None

    def plan_next(self, loop: TrainingLoop, train_dataloader: Any, val_dataloader: Any) -> Plan:
        """Return the plan that a fit would carry out now."""
        seed, ranks = self._parts.streams.seed, self._parts.strategy.ranks
        lengths = {
            name: as_source(loader, seed, "val_dataloader", ranks).max_batches
            for name, loader in name_dataloaders(val_dataloader).items()
        }
        num_micro_batches = as_source(train_dataloader, seed, "train_dataloader", ranks).num_batches
        return self._plan(loop, num_micro_batches, lengths, self._start(train_dataloader))

    def run(
        self,
        loop: TrainingLoop,
        train_dataloader: Any,
        val_dataloader: Any,
        start: Start,
        load: Callable[[], Checkpoint | None],
    ) -> FitResult:
        """Run a fit: load a checkpoint if ``load`` returns one, compute the plan, and carry out the plan.

        Set ``Parts.hooks`` before this call.

        Args:
            loop: training loop.
            train_dataloader: training dataloader that the user gave.
            val_dataloader: validation dataloaders that the user gave.
            start: arguments of `Trainer.fit` that choose the checkpoint, and how the checkpoint is used.
            load: function that returns the checkpoint from which the fit starts, or None if the fit starts without one.
        """
        parts, trainer, hooks = self._parts, self._parts.trainer, self._parts.hooks
        assert parts.optimizer is not None, "checked by fit"
        begun = time.perf_counter()
        with ExitStack() as stack:
            stack.enter_context(self._running())
            is_first = not parts.strategy.ranks.rank
            signals = stack.enter_context(
                StopSignals(parts.stopping, is_saved=self._saver is not None, is_quiet=not is_first)
            )
            stack.enter_context(self._waiting_for_save())
            stack.enter_context(parts.streams.active())
            stack.enter_context(parts.strategy.computing())
            stack.enter_context(reporting(hooks["on_fit_exception"], trainer))
            call_hooks(hooks["on_enter_fit"], trainer, stack, train_dataloader, val_dataloader, loop)
            inputs = self._prepare(loop, train_dataloader, val_dataloader, start, load())
            stack.enter_context(training(parts.model))
            parts.optimizer.zero_grad()  # the first update must not contain gradients from before the fit
            call_hooks(hooks["on_fit_start"], trainer, train_dataloader, val_dataloader, loop)
            parts.stopping.agree()
            self._warn_before_stages()
            if self._saver is not None:
                self._saver.check_state(inputs.plan)
            if inputs.plan.total_steps and not parts.stopping.is_asked:
                self._try_validations(inputs)
            if self._saver is not None and any(True for _ in inputs.plan) and not parts.stopping.is_asked:
                self._saver.begin_stages()
            FitLoop(parts, parts.optimizer, inputs).run()
            if self._saver is not None:
                self._saver.wait()
            call_hooks(hooks["on_fit_end"], trainer, loop)
            warn_of_missing_monitor(parts, self._checkpoint)
            parts.stopping.decide()
            ended_as = _state_of(parts.state)
            if self._saver is not None and ended_as == "completed":
                self._saver.finish(inputs.plan)
        end = signals.end()
        if end is not None:
            raise end
        return FitResult(
            state=ended_as,
            global_step=parts.state.global_step,
            metrics=dict(parts.log.latest),
            best=parts.log.best,
            seconds=time.perf_counter() - begun,
            plan=inputs.plan,
        )

    def close(self) -> None:
        """Release the training dataloader with its workers, and the saver, which refers to the trainer."""
        self._saver = None
        self.feed = None
        self._train_dataloader = None

    def _start(self, train_dataloader: Any) -> tuple[int, int]:
        """Return the ``global_step`` and the micro-batch index in the pass at which a fit starts.

        If ``train_dataloader`` is the dataloader of the last fit, its pass continues. Otherwise, a new pass starts.
        """
        state = self._parts.state
        is_same = train_dataloader is self._train_dataloader
        return state.global_step, state.micro_batch_index if is_same else 0

    def _prepare(
        self,
        loop: TrainingLoop,
        train_dataloader: Any,
        val_dataloader: Any,
        start: Start,
        checkpoint: Checkpoint | None,
    ) -> FitInputs:
        parts = self._parts
        resumed = checkpoint if start.resumes else None
        seed = parts.streams.seed if resumed is None else saved_seed(resumed)
        ranks = parts.strategy.ranks
        source = parts.data = as_source(train_dataloader, seed, "train_dataloader", ranks)
        val_sets = open_val_sets(val_dataloader, seed, ranks=ranks)
        lengths = {name: data.source.max_batches for name, data in val_sets.items()}
        if resumed is not None:
            self.plan = self._resume(loop, source.num_batches, lengths, resumed)
        else:
            self.plan = self._plan(loop, source.num_batches, lengths, self._start(train_dataloader))
            if checkpoint is not None:
                load_initial(parts, checkpoint, start)
            self._make_schedulers(self.plan)
            parts.log.train_sums.clear()
        self.feed = self._make_feed(train_dataloader, source, is_resumed=resumed is not None)
        parts.data = self.feed.source
        parts.log.set_default_monitor(list(val_sets))
        self._warn_about(self.plan, loop)
        return FitInputs(
            loop=loop,
            plan=self.plan,
            train_dataloader=train_dataloader,
            feed=self.feed,
            val_dataloader=val_dataloader,
            val_sets=val_sets,
            downstream={name: hook for name, _, hook in downstream_validations(self._parts)},
            save=None if self._saver is None else partial(self._saver.save, self.plan),
            check_state=None if self._saver is None else partial(self._saver.check_state, self.plan),
        )

    def _try_validations(self, inputs: FitInputs) -> None:
        """Run the model on the first batch of each validation set, to find errors before the first step."""
        if not can_try(self._parts, inputs.loop.val_loop):
            return
        tried = {
            each.name: try_validation(self._parts, inputs.val_sets[each.name], each.num_batches)
            for each in inputs.plan.val
        }
        self._warn_once(check_tried_metrics(self._parts, self._checkpoint, self._scheduler_specs, tried))

    def _make_feed(self, train_dataloader: Any, source: BatchSource, *, is_resumed: bool) -> Feed:
        """Return a `Feed` that begins with the next micro-batch of the run.

        If ``train_dataloader`` is the dataloader of the last fit, and reading cannot start at any micro-batch, return
        the `Feed` of the last fit.
        """
        state = self._parts.state
        is_same, self._train_dataloader = train_dataloader is self._train_dataloader, train_dataloader
        if is_resumed:
            return Feed(source, state)
        if is_same and self.feed is not None and not self.feed.is_sought:
            return self.feed
        if not is_same and state.micro_batch_index > 0:
            state.pass_index, state.micro_batch_index = state.pass_index + 1, 0
        return Feed(source, state)

    def _plan(
        self,
        loop: TrainingLoop,
        num_micro_batches: int | None,
        lengths: Mapping[str, int | None],
        start: tuple[int, int],
    ) -> Plan:
        checkpoint = self._checkpoint
        plan = plan_fit(
            loop,
            num_micro_batches,
            val=lengths,
            start_step=start[0],
            start_micro_batch=start[1],
            save_every=None if checkpoint is None else checkpoint.every_n_steps,
            save_last=checkpoint is not None,
            downstream={name: every_n_vals for name, every_n_vals, _ in downstream_validations(self._parts)},
            save_at_validations=checkpoint is not None and checkpoint.at_validations,
            keep_every=None if checkpoint is None else checkpoint.keep_every,
        )
        check_monitored(self._scheduler_specs, plan)
        self._metric_warnings = check_monitors(self._parts, checkpoint, self._scheduler_specs, plan)
        return plan

    def _resume(
        self,
        loop: TrainingLoop,
        num_micro_batches: int | None,
        lengths: Mapping[str, int | None],
        checkpoint: Checkpoint,
    ) -> Plan:
        """Load a checkpoint, and return the plan of the remaining steps of the saved fit."""
        saved = saved_plan(checkpoint)
        whole = self._plan(loop, num_micro_batches, lengths, (saved["start_step"], saved["start_micro_batch"]))
        factories = [factory for factory, _ in self._scheduler_specs]
        changes = [*changed_settings(self._parts, checkpoint), *changed_epochs(factories, saved, whole)]
        rest = rest_of_run(checkpoint, saved, whole, changes)
        self._extensions = [f"{checkpoint.path}: {each}." for each in plan_extensions(saved, whole.settings())]
        finished = with_last_validations(checkpoint, whole)
        if finished is not None:
            checkpoint, rest = finished, whole.finished()
        with saved_groups_added(self._parts, checkpoint):
            self._make_schedulers(whole)
            resume_run(self._parts, checkpoint)
        if whole.stop_step > saved["stop_step"]:
            parts, ends = self._parts, (saved["stop_step"], whole.stop_step)
            assert parts.optimizer is not None, "checked by fit"
            self._extensions += later_end_lines(self._scheduler_specs, parts.schedulers, parts.optimizer, *ends)
        return rest

    def _make_schedulers(self, plan: Plan) -> None:
        parts = self._parts
        assert parts.optimizer is not None, "checked by fit"
        if self._schedule_stop_step is None:
            for spec in self._scheduler_specs:
                scheduler = build_scheduler(spec, parts.optimizer, plan.fit_steps, plan.steps_per_epoch)
                if spec[1] is None:
                    parts.schedulers.append(scheduler)
                else:
                    parts.monitored.append((scheduler, spec[1]))
            self._schedule_stop_step = plan.stop_step
        elif plan.stop_step > self._schedule_stop_step and self._has_total_steps:
            _log.warning(
                "A scheduler got total_steps from the first fit, which was planned to end at step %d; "
                "this fit ends at step %d.",
                self._schedule_stop_step,
                plan.stop_step,
            )

    @property
    def _has_total_steps(self) -> bool:
        """Whether a scheduler receives ``total_steps`` from a plan."""
        return any(takes_total_steps(factory) for factory, _ in self._scheduler_specs)

    def _warn_about(self, plan: Plan, loop: TrainingLoop) -> None:
        """Issue the warnings about the plan, ``eval_steps`` and monitored metrics that no earlier fit has issued."""
        if not plan.total_steps:
            _log.warning("Nothing to train: global_step is %d, and the plan ends there.", plan.stop_step)
        for warning in plan.warnings:
            if warning not in self._warned:
                warnings.warn(warning, stacklevel=5)
        clipped = [eval_steps_note(entry.length, loop.eval_steps, entry.name) for entry in plan.val]
        self._warned |= {*plan.warnings}
        self._warn_once([*(f"{note}." for note in clipped if note is not None), *self._metric_warnings])

    def _warn_once(self, lines: list[str]) -> None:
        """Log each line as a warning, unless the line was logged before."""
        for line in lines:
            if line not in self._warned:
                _log.warning("%s", line)
        self._warned |= {*lines}

    def _warn_before_stages(self) -> None:
        """Log how the plan of a resumed run has changed, or why the fit was stopped before its first step."""
        stopping, lines = self._parts.stopping, self._extensions
        if stopping.is_asked and stopping.reason is not None:
            callback = dict(self._parts.callbacks).get(stopping.by or "")
            lines = [nothing_to_train(stopping.by, callback, stopping.reason, self._parts.state.global_step)]
        for line in lines:
            _log.warning("%s", line)
        self._extensions = []

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Mark the fit as running during the context. At the end, end a step that an exception has interrupted."""
        parts, state = self._parts, self._parts.state
        if self.is_running:
            raise RuntimeError("This trainer is already in a fit; call fit again after it has ended.")
        self.is_running = parts.log.keeps_best = True
        parts.stopping.begin()
        try:
            yield
        finally:
            self.is_running = parts.log.keeps_best = False
            parts.stopping.end()
            state.batch_idx = None
            if state.is_inside_window:
                self._leave_broken_step()
            if self.feed is not None:
                self.feed.rest()

    @contextmanager
    def _waiting_for_save(self) -> Iterator[None]:
        """If the context raises an exception, wait for a save in the background, except after a second signal.

        An error of the save is added to the exception of the context as a note.
        """
        stopping = self._parts.stopping
        try:
            yield
        except BaseException as error:
            if self._saver is not None and stopping.exit is None:
                try:
                    self._saver.wait_alone()
                except BaseException as another:
                    if another is stopping.exit:
                        raise
                    error.add_note(f"While a checkpoint was saved: {type(another).__name__}: {another}.")
            raise

    def _leave_broken_step(self) -> None:
        """End an interrupted step.

        The step counts as completed if its update was made or skipped. Otherwise, the next fit repeats the step.
        """
        parts, state, optimizer = self._parts, self._parts.state, self._parts.optimizer
        state.is_inside_window = False
        if state.is_updated:
            state.global_step += 1
        elif self.feed is not None:
            self.feed.rewind()
            parts.log.train_sums.clear()  # the sums may contain micro-batches that will be read again
        if optimizer is not None:
            optimizer.zero_grad()


def _state_of(state: RunState) -> Literal["completed", "stopped", "interrupted"]:
    if state.is_interrupted:
        return "interrupted"
    return "completed" if state.stop_reason is None else "stopped"
