"""`Plan`: the ordered whole of what a fit does, computed as it is asked for and never stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice

from loopwright.errors import refuse
from loopwright.plan.cadence import next_multiple
from loopwright.plan.passes import Passes, Window
from loopwright.plan.stages import Downstream, Save, Stage, Train, Validate
from loopwright.plan.validation import PlannedSet

LoopSettings = tuple[tuple[str, int | float | None], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a fit does: iterate over it for its stages, as often as you like; it holds none of them.

    At one step the order is train, save, validate, downstream. Saves fall on multiples of ``global_step``,
    validations are counted from the fit's start, and both may follow the last step.

    Args:
        start_step: ``global_step`` at which the fit starts.
        stop_step: ``global_step`` at which the fit ends.
        position: ``global_step`` from which on this plan, the rest of the fit, is left to do.
        num_validated: stages of the round of validations at ``position`` that are done, too.
        passes: how they are cut into the micro-batches of steps.
        eval_every: steps between validations; None: never, or there is nothing to validate.
        val: the dataloaders to validate, in order.
        downstream: (name, validations between two runs) of the downstream validations, in order.
        save_every: steps between saves; None: no saves in between.
        save_last: whether the end of the last step is saved.
        loop_settings: the settings of the loop as given, by name.
        notes: how the settings were understood, a line each.
        warnings: those of the notes that a user should be warned about.
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
    loop_settings: LoopSettings
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    num_validated: int = 0

    @property
    def total_steps(self) -> int:
        """Steps that this plan trains."""
        return self.stop_step - self.position

    @property
    def fit_steps(self) -> int:
        """Steps of the whole fit, those before ``position`` included: what schedulers are told."""
        return self.stop_step - self.start_step

    @property
    def total_micro_batches(self) -> int:
        """Micro-batches that this plan trains on."""
        return self.num_micro_batches_between(self.position, self.stop_step)

    @property
    def grad_accum_steps(self) -> int:
        """Micro-batches of a step, where a pass is not running out."""
        return self.passes.grad_accum_steps

    @property
    def num_micro_batches(self) -> int | None:
        """Micro-batches of a pass; None: unknown."""
        return self.passes.num_micro_batches

    def __iter__(self) -> Iterator[Stage]:
        step = self.position
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
    def begins_with_validation(self) -> bool:
        """Whether a round of validations, or the rest of one, is the first that is left to do."""
        size = len(self.val) + len(self.downstream_at(self.position))
        return self.validates_at(self.position) and self.num_validated < size

    def after(self, step: int, num_validated: int = 0) -> Plan:
        """The rest of this plan for a run whose newest state is that of the end of ``step``.

        Everything up to ``step`` is trained and its save, where one is due, is done; validations at ``step``
        are not, but for the first ``num_validated``, and so begin the rest. The stages of the rest are the last
        of this plan's, with the first `Train` cut short.

        Raises:
            ValueError: if ``step`` is before what is left to do, or after its end.
        """
        self._check_step(step, self.position, self.stop_step)
        return replace(self, position=step, num_validated=num_validated)

    def whole(self) -> Plan:
        """The plan of the whole fit, of which this one may be the rest."""
        return replace(self, position=self.start_step, num_validated=0)

    def window(self, step: int) -> Window:
        """The micro-batches of the step that begins when ``global_step`` is ``step``.

        ``pass_index`` counts from the pass in which the fit starts. A dataloader of unknown length has one
        endless pass.

        Raises:
            ValueError: unless ``start_step <= step < stop_step``.
        """
        self._check_step(step, self.start_step, self.stop_step - 1)
        return self.passes.at(step - self.start_step)

    def windows(self, start: int, stop: int) -> Iterator[Window]:
        """The windows of the steps in ``[start, stop)``, such as those of a `Train` stage, at next to no cost.

        Raises:
            ValueError: unless ``start_step <= start <= stop <= stop_step``.
        """
        self._check_step(start, self.start_step, self.stop_step)
        self._check_step(stop, start, self.stop_step)
        return self.passes.between(start - self.start_step, stop - self.start_step)

    def num_micro_batches_between(self, start: int, stop: int) -> int:
        """How many micro-batches the steps in ``[start, stop)`` consume."""
        return self.passes.num_consumed(stop - self.start_step) - self.passes.num_consumed(start - self.start_step)

    def loop_position(self, step: int) -> tuple[int, int]:
        """(loop_idx, batch_idx): where the end of ``step`` is, in train loops and micro-batches.

        A train loop is the training between two validations, so these are the validations up to and at
        ``step`` since the fit's start, and the micro-batches since the last of them.

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
        """Rounds of validation from the fit's start up to and at ``step``."""
        if self.eval_every is None:
            return 0
        num, over = divmod(step - self.start_step, self.eval_every)
        return num + (step == self.stop_step and over > 0)

    def validates_at(self, step: int) -> bool:
        """Whether a round of validation follows the end of ``step``."""
        if self.eval_every is None or step <= self.start_step:
            return False
        return step == self.stop_step or (step - self.start_step) % self.eval_every == 0

    def saves_at(self, step: int) -> bool:
        """Whether a save follows the end of ``step``."""
        if step <= self.start_step:
            return False
        is_multiple = self.save_every is not None and step % self.save_every == 0
        return is_multiple or (self.save_last and step == self.stop_step)

    def downstream_at(self, step: int) -> tuple[str, ...]:
        """The downstream validations that follow the end of ``step``: every nth round, and the last."""
        if not self.downstream or not self.validates_at(step):
            return ()
        index = self.num_validations(step)
        is_last = step == self.stop_step
        return tuple(name for name, every_n_vals in self.downstream if is_last or index % every_n_vals == 0)

    def next_boundary(self, step: int) -> int:
        """The first step after ``step`` whose end is saved or validated, or the last."""
        boundary = self.stop_step
        if self.save_every is not None:
            boundary = min(boundary, next_multiple(step, self.save_every))
        if self.eval_every is not None:
            boundary = min(boundary, next_multiple(step, self.eval_every, origin=self.start_step))
        return boundary

    def settings(self) -> Mapping[str, object]:
        """Everything that the stages and windows of the whole fit follow from, as JSON scalars by name."""
        return {
            **{f"loop.{name}": value for name, value in self.loop_settings},
            "start_step": self.start_step,
            "start_micro_batch": self.passes.start_micro_batch,
            "stop_step": self.stop_step,
            "train.num_micro_batches": self.num_micro_batches,
            "eval_every": self.eval_every,
            **{f"validate.{val.name}": val.num_batches for val in self.val},
            **{f"downstream.{name}": every_n_vals for name, every_n_vals in self.downstream},
            "checkpoint.every_n_steps": self.save_every,
            "checkpoint.save_last": self.save_last,
        }

    def _round_at(self, step: int) -> Iterator[Stage]:
        for val in self.val:
            yield Validate(step, val.name, val.num_batches)
        for name in self.downstream_at(step):
            yield Downstream(step, name)

    def _check_step(self, step: int, first: int, last: int) -> None:
        if not first <= step <= last:
            raise refuse("step", step, f"a step of this plan, {first} to {last}")
