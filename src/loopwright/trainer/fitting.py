"""`Fitting`: the fits of one trainer: load what was asked for, plan, carry out, and be ready for the next."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from loopwright.checkpoint import Checkpoint, Checkpointing
from loopwright.data import as_source
from loopwright.engine.binding import Hook, call_hooks, reporting
from loopwright.engine.feed import Feed
from loopwright.engine.fit import FitInputs, FitLoop
from loopwright.engine.inputs import name_dataloaders
from loopwright.engine.modes import training
from loopwright.engine.parts import Parts
from loopwright.engine.setup import SchedulerSpec, build_scheduler
from loopwright.errors import CheckpointError, SettingError
from loopwright.hooks import ValidationCallback, implements
from loopwright.loop import TrainingLoop
from loopwright.plan import Plan, eval_steps_note, plan_differences, plan_extensions, plan_fit
from loopwright.run import FitResult
from loopwright.trainer.checkpoints import resume_run
from loopwright.trainer.validation import open_val_sets

_log = logging.getLogger("loopwright")


class Fitting:
    """Plans and runs the fits of one trainer.

    Args:
        parts: of the trainer.
        checkpoint: when to save; None: never.
        schedulers: made by the first fit, as they may ask for its length.
        save: saves the run where its checkpoints belong.
    """

    def __init__(
        self,
        parts: Parts,
        checkpoint: Checkpointing | None,
        schedulers: list[SchedulerSpec],
        save: Callable[[], object],
    ) -> None:
        self._parts = parts
        self._checkpoint = checkpoint
        self._scheduler_specs = schedulers
        self._save = save
        self._train_dataloader: Any = None
        self._feed: Feed | None = None
        self._has_schedulers = False
        self._said: set[str] = set()
        self.is_running = False
        self.plan: Plan | None = None

    def plan_next(self, loop: TrainingLoop, train_dataloader: Any, val_dataloader: Any) -> Plan:
        """The plan that a fit would carry out now."""
        seed = self._parts.streams.seed
        lengths = {
            name: as_source(loader, seed).num_batches for name, loader in name_dataloaders(val_dataloader).items()
        }
        is_same = train_dataloader is self._train_dataloader
        start = (self._parts.state.global_step, self._parts.state.micro_batch_index if is_same else 0)
        return self._plan(loop, as_source(train_dataloader, seed).num_batches, lengths, start)

    def run(
        self, loop: TrainingLoop, train_dataloader: Any, val_dataloader: Any, load: Callable[[], Checkpoint | None]
    ) -> FitResult:
        """Fit; hooks are bound.

        Args:
            loop: the training loop.
            train_dataloader: as the user gave it.
            val_dataloader: as the user gave it.
            load: loads weights, or reads the checkpoint to go on from and returns it.
        """
        parts, trainer, hooks = self._parts, self._parts.trainer, self._parts.hooks
        begun = time.perf_counter()
        with ExitStack() as stack:
            stack.enter_context(self._running())
            stack.enter_context(parts.streams.active())
            stack.enter_context(reporting(hooks["on_fit_exception"], trainer))
            call_hooks(hooks["on_enter_fit"], trainer, stack, train_dataloader, val_dataloader, loop)
            inputs = self._prepare(loop, train_dataloader, val_dataloader, load())
            stack.enter_context(training(parts.model))
            call_hooks(hooks["on_fit_start"], trainer, train_dataloader, val_dataloader, loop)
            assert parts.optimizer is not None, "checked by fit"
            FitLoop(parts, parts.optimizer, inputs).run()
            call_hooks(hooks["on_fit_end"], trainer, loop)
        return FitResult(
            state="completed" if parts.state.stop_reason is None else "stopped",
            global_step=parts.state.global_step,
            metrics=dict(parts.log.latest),
            best=parts.log.best,
            seconds=time.perf_counter() - begun,
            plan=inputs.plan,
        )

    def close(self) -> None:
        """Let go of the training dataloader, and with it of its workers."""
        self._feed = None
        self._train_dataloader = None

    def _prepare(
        self, loop: TrainingLoop, train_dataloader: Any, val_dataloader: Any, checkpoint: Checkpoint | None
    ) -> FitInputs:
        parts, state = self._parts, self._parts.state
        seed = parts.streams.seed if checkpoint is None else _saved(checkpoint, "streams")["seed"]
        val_sets = open_val_sets(val_dataloader, seed)
        lengths = {name: data.source.num_batches for name, data in val_sets.items()}
        if checkpoint is not None:
            source = as_source(train_dataloader, seed)
            self.plan = self._resume(loop, source.num_batches, lengths, checkpoint)
            self._feed = Feed(source, state)
        else:
            if train_dataloader is not self._train_dataloader or self._feed is None:
                source = as_source(train_dataloader, seed)
                is_new = self._train_dataloader is not train_dataloader and state.micro_batch_index > 0
                start = (state.global_step, 0 if is_new else state.micro_batch_index)
                self.plan = self._plan(loop, source.num_batches, lengths, start)
                if is_new:
                    state.pass_index, state.micro_batch_index = state.pass_index + 1, 0
                self._feed = Feed(source, state)
            else:
                self.plan = self._plan(
                    loop, self._feed.num_batches, lengths, (state.global_step, state.micro_batch_index)
                )
            self._make_schedulers(self.plan)
        self._train_dataloader = train_dataloader
        self._say(self.plan, loop)
        return FitInputs(
            loop=loop,
            plan=self.plan,
            train_dataloader=train_dataloader,
            feed=self._feed,
            val_dataloader=val_dataloader,
            val_sets=val_sets,
            downstream=self._downstream_hooks(),
            save=None if self._checkpoint is None else self._save,
        )

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
            downstream={name: every_n_vals for name, every_n_vals, _ in self._downstream()},
        )
        is_monitoring = any(monitor is not None for _, monitor in self._scheduler_specs)
        if is_monitoring and plan.eval_every is None and plan.total_steps:
            raise SettingError(
                "schedulers",
                ": one is stepped with a metric of the validations, and this plan has none; "
                "give val_dataloader and eval_frequency.",
            )
        return plan

    def _resume(
        self,
        loop: TrainingLoop,
        num_micro_batches: int | None,
        lengths: Mapping[str, int | None],
        checkpoint: Checkpoint,
    ) -> Plan:
        """Go on from ``checkpoint``: the plan of its fit, computed again, and of it what is left."""
        saved = _saved(checkpoint, "plan")
        if saved is None:
            raise CheckpointError(
                f"{checkpoint.path}: was saved before the first fit; expected the checkpoint of a fit."
            )
        whole = self._plan(loop, num_micro_batches, lengths, (saved["start_step"], saved["start_micro_batch"]))
        differences = plan_differences(saved, whole.settings())
        if differences:
            raise SettingError(
                "ckpt_path",
                f"={checkpoint.path}: its run was planned otherwise ({'; '.join(differences)}); "
                "expected the same settings, or a longer end; init_from begins a new run with its weights.",
            )
        for extension in plan_extensions(saved, whole.settings()):
            _log.warning("%s: %s.", checkpoint.path, extension)
        self._make_schedulers(whole)
        resume_run(self._parts, checkpoint)
        return whole.after(self._parts.state.global_step)

    def _make_schedulers(self, plan: Plan) -> None:
        parts = self._parts
        if self._has_schedulers or parts.optimizer is None:
            return
        for factory, monitor in self._scheduler_specs:
            scheduler = build_scheduler(factory, parts.optimizer, plan.fit_steps)
            if monitor is None:
                parts.schedulers.append(scheduler)
            else:
                parts.monitored.append((scheduler, monitor))
        self._has_schedulers = True

    def _downstream(self) -> list[tuple[str, int, Hook]]:
        """(name, every_n_vals, run_validation) of the callbacks that validate on their own."""
        listeners = [(name, cb) for name, cb in self._parts.callbacks if implements(cb, "run_validation")]
        bound = self._parts.hooks["run_validation"]
        return [
            (
                (cb.name if isinstance(cb, ValidationCallback) else None) or name,
                cb.every_n_vals if isinstance(cb, ValidationCallback) else 1,
                hook,
            )
            for (name, cb), hook in zip(listeners, bound, strict=True)
        ]

    def _downstream_hooks(self) -> dict[str, Hook]:
        return {name: hook for name, _, hook in self._downstream()}

    def _say(self, plan: Plan, loop: TrainingLoop) -> None:
        """Say once what a user would not expect of the plan."""
        if not plan.total_steps:
            _log.warning("Nothing to train: global_step is %d, and the plan ends there.", plan.stop_step)
        for warning in plan.warnings:
            if warning not in self._said:
                warnings.warn(warning, stacklevel=5)
        clipped = [eval_steps_note(entry.length, loop.eval_steps, entry.name) for entry in plan.val]
        for note in clipped:
            if note is not None and note not in self._said:
                _log.warning("%s.", note)
        self._said |= {*plan.warnings, *(note for note in clipped if note is not None)}

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Mark the fit as running; where it breaks inside a step, go back to the step's beginning."""
        parts, state = self._parts, self._parts.state
        if self.is_running:
            raise RuntimeError("This trainer is in a fit already.")
        self.is_running, state.stop_reason = True, None
        try:
            yield
        finally:
            self.is_running = False
            if self._feed is not None:
                self._feed.rest()
            if state.is_inside_window:
                state.is_inside_window = False
                state.pass_index, state.micro_batch_index = state.window_start
                self._feed = None
                if parts.optimizer is not None:
                    parts.optimizer.zero_grad()


def _saved(checkpoint: Checkpoint, key: str) -> Any:
    if key not in checkpoint.state:
        raise CheckpointError(f"{checkpoint.path}: holds no {key}; expected the checkpoint of a fit.")
    return checkpoint.state[key]
