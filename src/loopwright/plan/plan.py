"""`Plan`, which generates the stages of a fit from its intervals and lengths.

A downstream validation is a validation that a callback runs in its hook ``run_validation``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import islice

from loopwright.errors import refuse
from loopwright.plan.cadence import Cadence, count_steps, next_multiple
from loopwright.plan.passes import Passes, Window
from loopwright.plan.stages import Downstream, Save, Stage, Train, Validate
from loopwright.plan.training_settings import TrainingSettings
from loopwright.plan.validation import PlannedSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The plan of a fit. Each iteration over a plan generates its stages.

    The stages of one step are in the order train, save, validate, downstream. A save is due if ``global_step`` is a
    multiple of ``save_every``. A validation is due every ``eval_every`` steps from ``start_step``, and after the last
    step. All validations after one step form a round. ``save_at_validations`` adds a save before each round, and
    ``save_last`` adds a save after the last step. A step is saved once, even if several of these rules apply.

    With the setting ``eval_at_start`` of the loop, a round of the validation dataloaders precedes the first step of the
    fit. This round has no downstream validations, and the numbers of rounds and train loops do not include it.

    Args:
        start_step: ``global_step`` at which the fit starts.
        stop_step: ``global_step`` at which the fit ends.
        position: ``global_step`` at which this plan starts: ``start_step``, or a later step for the rest of a fit.
        num_validated: number of completed validations in the round at ``position``.
        is_position_saved: whether a save that is due at ``position`` is completed.
        passes: object that computes the micro-batches of each step.
        eval_every: steps between validations; None: no validation during training.
        val: validation dataloaders, in order.
        downstream: pairs of name and ``every_n_vals``, in order. The downstream validation runs in every
            ``every_n_vals``-th round of validations, and in the last round.
        save_every: interval of saves. A step is saved if ``global_step`` is a multiple of the interval. None: no such
            saves.
        save_every_text: length in epochs from which ``save_every`` was computed; None: the user gave a number of steps.
        keep_every: interval of permanent checkpoints. A checkpoint is always kept if its step is a multiple of the
            interval. None: no such checkpoints. The interval does not change the stages.
        save_last: whether the last step is saved.
        save_at_validations: whether each step that is validated is saved before its validations.
        loop_settings: settings of the loop.
        notes: lines for the user that explain the effects of the settings.
        warnings: lines of ``notes`` that are also issued as Python warnings.
    """

    start_step: int
    stop_step: int
    position: int
    passes: Passes
    eval_every: int | None
    val: tuple[PlannedSet, ...]
    downstream: tuple[tuple[str, int], ...]
    save_every: int | None
    save_last: bool
    save_at_validations: bool
    loop_settings: TrainingSettings
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    num_validated: int = 0
    is_position_saved: bool = False
    save_every_text: str | None = None
    keep_every: int | None = None

    @property
    def total_steps(self) -> int:
        """Number of steps that this plan trains, from ``position`` on."""
        return self.stop_step - self.position

    @property
    def fit_steps(self) -> int:
        """Number of steps of the whole fit, including steps before ``position``. Schedulers receive this number."""
        return self.stop_step - self.start_step

    @property
    def total_micro_batches(self) -> int:
        """Number of micro-batches that this plan trains on."""
        return self.num_micro_batches_between(self.position, self.stop_step)

    @property
    def steps_per_epoch(self) -> int | None:
        """Number of steps in an epoch; None: unknown. Schedulers receive this number."""
        given = self.loop_settings.steps_per_epoch
        return self.passes.steps_per_pass if given is None else given

    @property
    def num_saves(self) -> int:
        """Number of checkpoints that this plan saves. It is computed without generating the stages."""
        if not self.total_steps:
            return 0
        cadences = [] if self.save_every is None else [Cadence(self.save_every)]
        if self.save_at_validations and self.eval_every is not None:
            rounds = {1} if self.val else {every_n_vals for _, every_n_vals in self.downstream}
            cadences += [Cadence(self.eval_every * every_n_vals, self.start_step) for every_n_vals in sorted(rounds)]
        num_between = count_steps(cadences, self.position + 1, self.stop_step)
        return self.begins_with_save + num_between + self.saves_at(self.stop_step)

    @property
    def grad_accum_steps(self) -> int:
        """Number of micro-batches of a step. The last step of a pass may have fewer micro-batches."""
        return self.passes.grad_accum_steps

    @property
    def num_micro_batches(self) -> int | None:
        """Number of micro-batches in a pass; None: unknown."""
        return self.passes.num_micro_batches

    def __iter__(self) -> Iterator[Stage]:
        step = self.position
        if self.begins_with_save:
            yield Save(step)
        if self.begins_with_validation:
            yield from islice(self._round_at(step), self.num_validated, None)
        while step < self.stop_step:
            stop = self.next_boundary(step)
            yield Train(step, stop)
            if self.saves_at(stop):
                yield Save(stop)
            if self.validates_at(stop):
                yield from self._round_at(stop)
            step = stop

    @property
    def validates_at_start(self) -> bool:
        """Whether a round of validations precedes the first step of the fit."""
        return self.loop_settings.eval_at_start and bool(self.val) and self.fit_steps > 0

    @property
    def begins_with_save(self) -> bool:
        """Whether this plan begins with a save before the validations that precede the first step."""
        return self.position == self.start_step and not self.is_position_saved and self.saves_at(self.position)

    @property
    def begins_with_validation(self) -> bool:
        """Whether this plan begins with a round of validations, or with the remaining validations of a round."""
        size = len(self.val) + len(self.downstream_at(self.position))
        return self.validates_at(self.position) and self.num_validated < size

    def after(self, step: int, num_validated: int = 0) -> Plan:
        """Return a plan with the remaining stages for a run that has completed ``step``.

        The returned plan begins with the remaining validations at ``step``, without a save at ``step``. It contains the
        last stages of this plan. The first `Train` stage may be shorter than in this plan.

        Args:
            step: ``global_step`` of the run.
            num_validated: number of completed validations at ``step``.

        Raises:
            ValueError: if ``step`` is before ``position`` or after ``stop_step``.
        """
        self._check_step(step, self.position, self.stop_step)
        return replace(self, position=step, num_validated=num_validated, is_position_saved=True)

    def finished(self) -> Plan:
        """Return a plan without stages, for a run that has completed this plan."""
        last = self.stop_step
        return self.after(last, len(self.val) + len(self.downstream_at(last)))

    def whole(self) -> Plan:
        """Return the plan of the whole fit, including the stages before ``position``."""
        return replace(self, position=self.start_step, num_validated=0, is_position_saved=False)

    def window(self, step: int) -> Window:
        """Return the micro-batches of the step that begins when ``global_step`` is ``step``.

        ``pass_index`` counts from the pass in which the fit starts. A dataloader of unknown length has one
        endless pass.

        Raises:
            ValueError: unless ``start_step <= step < stop_step``.
        """
        self._check_step(step, self.start_step, self.stop_step - 1)
        return self.passes.at(step - self.start_step)

    def windows(self, start: int, stop: int) -> Iterator[Window]:
        """Iterate over the micro-batches of each step in ``[start, stop)``, without a Python call per step.

        Raises:
            ValueError: unless ``start_step <= start <= stop <= stop_step``.
        """
        self._check_step(start, self.start_step, self.stop_step)
        self._check_step(stop, start, self.stop_step)
        return self.passes.between(start - self.start_step, stop - self.start_step)

    def num_micro_batches_between(self, start: int, stop: int) -> int:
        """Count the micro-batches that the steps in ``[start, stop)`` consume."""
        return self.passes.num_consumed(stop - self.start_step) - self.passes.num_consumed(start - self.start_step)

    def loop_position(self, step: int) -> tuple[int, int]:
        """Return ``loop_idx`` and ``batch_idx`` of the micro-batch that follows ``step``.

        A train loop is the training between two rounds of validations. So ``loop_idx`` is the number of rounds from the
        start of the fit, up to and including the round at ``step``. ``batch_idx`` is the number of micro-batches since
        the last round.

        Raises:
            ValueError: unless ``start_step <= step <= stop_step``.
        """
        self._check_step(step, self.start_step, self.stop_step)
        last = self.start_step
        if self.validates_at(step):
            last = step
        elif self.eval_every is not None:
            last = step - (step - self.start_step) % self.eval_every
        return self.num_validations(step), self.num_micro_batches_between(last, step)

    def num_validations(self, step: int) -> int:
        """Count the rounds of validations from the start of the fit, up to and including the round at ``step``."""
        if self.eval_every is None:
            return 0
        num, over = divmod(step - self.start_step, self.eval_every)
        return num + (step == self.stop_step and over > 0)

    def validates_at(self, step: int) -> bool:
        """Return whether a round of validations follows ``step``.

        For ``start_step``, return whether a round precedes the first step.
        """
        if step == self.start_step:
            return self.validates_at_start
        if self.eval_every is None or step < self.start_step:
            return False
        return step == self.stop_step or (step - self.start_step) % self.eval_every == 0

    def ends_train_loop(self, step: int) -> bool:
        """Return whether ``step`` is the last step before a round of validations, or the last step of the plan."""
        return step == self.stop_step or self.validates_at(step)

    def saves_at(self, step: int) -> bool:
        """Return whether a save follows ``step``."""
        if step <= self.start_step:
            return self.save_at_validations and self.validates_at(step)
        if self.saves_multiple_at(step) or (self.save_last and step == self.stop_step):
            return True
        return self.save_at_validations and self._has_validations_at(step)

    def saves_multiple_at(self, step: int) -> bool:
        """Return whether ``step`` is a multiple of ``save_every``."""
        return self.save_every is not None and step % self.save_every == 0

    def downstream_at(self, step: int) -> tuple[str, ...]:
        """Return the names of the downstream validations that follow ``step``.

        A downstream validation runs in every nth round of validations, and in the last round.
        """
        if not self.downstream or step == self.start_step or not self.validates_at(step):
            return ()
        index = self.num_validations(step)
        is_last = step == self.stop_step
        return tuple(name for name, every_n_vals in self.downstream if is_last or index % every_n_vals == 0)

    def next_boundary(self, step: int) -> int:
        """Return the first step after ``step`` that is saved or validated. If there is none, return the last step."""
        boundary = self.stop_step
        if self.save_every is not None:
            boundary = min(boundary, next_multiple(step, self.save_every))
        if self.eval_every is not None:
            boundary = min(boundary, next_multiple(step, self.eval_every, origin=self.start_step))
        return boundary

    def settings(self) -> Mapping[str, object]:
        """Return all values that determine the stages and steps of the whole fit, as JSON scalars by name."""
        return {
            **{f"loop.{name}": value for name, value in asdict(self.loop_settings).items()},
            "start_step": self.start_step,
            "start_micro_batch": self.passes.start_micro_batch,
            "stop_step": self.stop_step,
            "train.num_micro_batches": self.num_micro_batches,
            "eval_every": self.eval_every,
            **{f"validate.{val.name}": val.num_batches for val in self.val},
            **{f"downstream.{name}": every_n_vals for name, every_n_vals in self.downstream},
            "checkpoint.every_n_steps": self.save_every,
            "checkpoint.save_last": self.save_last,
            "checkpoint.at_validations": self.save_at_validations,
        }

    def __repr__(self) -> str:
        """Return the steps, validations and saves on one line. `loopwright.plan.describe` returns all details."""
        shown = {
            "start_step": self.start_step,
            **({"position": self.position} if self.position != self.start_step else {}),
            "stop_step": self.stop_step,
            "eval_every": self.eval_every,
            "val": [each.name for each in self.val],
            **({"downstream": [name for name, _ in self.downstream]} if self.downstream else {}),
            "num_saves": self.num_saves,
        }
        return f"Plan({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    def _has_validations_at(self, step: int) -> bool:
        """Return whether at least one validation follows ``step``.

        Without validation dataloaders, a round has no validations if no downstream validation is due.
        """
        return self.validates_at(step) and bool(self.val or self.downstream_at(step))

    def _round_at(self, step: int) -> Iterator[Stage]:
        for val in self.val:
            yield Validate(step, val.name, val.num_batches)
        for name in self.downstream_at(step):
            yield Downstream(step, name)

    def _check_step(self, step: int, first: int, last: int) -> None:
        if not first <= step <= last:
            raise refuse("step", step, f"a step of this plan, {first} to {last}")
