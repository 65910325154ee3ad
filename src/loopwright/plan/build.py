"""`plan_fit`: computes the plan of a fit from the settings of a loop and the lengths of the dataloaders."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from dataclasses import replace

from loopwright.errors import check_count, refuse, refuse_type
from loopwright.plan.cadence import steps_between_validations
from loopwright.plan.lengths import find_end, find_steps_per_epoch
from loopwright.plan.passes import Passes
from loopwright.plan.plan import Plan
from loopwright.plan.save_intervals import find_save_intervals
from loopwright.plan.training_settings import HasTrainingSettings, TrainingSettings
from loopwright.plan.validation import PlannedSet, eval_steps_note, validation_batches

_MANY_STEPS = 100
_MANY_SAVES = 200


def plan_fit(
    loop: HasTrainingSettings,
    num_micro_batches: int | None,
    val: Mapping[str, int | None] | None = None,
    start_step: int = 0,
    start_micro_batch: int = 0,
    save_every: int | str | None = None,
    save_last: bool = False,
    downstream: Mapping[str, int] | None = None,
    save_at_validations: bool = False,
    keep_every: int | str | None = None,
) -> Plan:
    """Compute the plan of a fit. No step is trained, and no data is read.

    Args:
        loop: a `TrainingLoop`, or another object with `TrainingSettings`.
        num_micro_batches: length of the training dataloader; None: unknown.
        val: lengths of the validation dataloaders in batches (None: unknown), by the prefixes of the metric names.
        start_step: ``global_step`` at which the fit starts.
        start_micro_batch: number of micro-batches of the current pass that are already consumed. If the whole pass is
            consumed, the fit starts with the next pass.
        save_every: interval of checkpoints in steps, or in epochs, such as ``"1 epoch"``. A checkpoint is saved when
            ``global_step`` is a multiple of the interval. None: no such checkpoints.
        save_last: whether a checkpoint of the last step is saved.
        downstream: interval of each downstream validation in rounds of validations, by name. 1 means every round. A
            downstream validation is a validation that a callback runs in ``run_validation``.
        save_at_validations: whether a checkpoint of each validated step is also saved, before the validations.
        keep_every: interval of the checkpoints that are always kept, in steps or epochs; a multiple of ``save_every``.

    Raises:
        TypeError: if ``loop`` has no `TrainingSettings`, or an argument has a wrong type.
        ValueError: if the loop has no length; if an epoch has no length, or is longer than a pass; if a step needs more
            micro-batches than a pass has; if a dataloader is empty; if ``eval_steps`` is None and the length of a
            validation dataloader is unknown; if ``save_every`` or ``keep_every`` is not a whole number of steps.

    >>> from loopwright.loop import TrainingLoop
    >>> plan = plan_fit(TrainingLoop(num_steps=20, eval_frequency=10, eval_steps=5), 937, val={"val": 79})
    >>> for stage in plan:
    ...     print(stage)
    Train(start=0, stop=10)
    Validate(step=10, name='val', num_batches=5)
    Train(start=10, stop=20)
    Validate(step=20, name='val', num_batches=5)
    """
    if not isinstance(loop, HasTrainingSettings) or not isinstance(loop.settings, TrainingSettings):
        raise refuse_type("loop", loop, "a TrainingLoop", "a ValidationLoop is for validate and validate_all")
    val, downstream = dict(val or {}), dict(downstream or {})
    start_step = _check_whole("start_step", start_step)
    settings = loop.settings
    passes = _cut_passes(settings, num_micro_batches, start_micro_batch)
    steps_per_epoch = find_steps_per_epoch(settings, passes)
    saves = find_save_intervals(save_every, keep_every, steps_per_epoch)
    for name, value in (("save_last", save_last), ("save_at_validations", save_at_validations)):
        if not isinstance(value, bool):
            raise refuse_type(name, value, "true or false")
    for name, every_n_vals in downstream.items():
        check_count(f"downstream[{name!r}]", every_n_vals, "a whole number of validations, 1 or more")
        if name in val:
            raise refuse("downstream", name, "a name that no validation dataloader has", "rename one of the two")
    has_validations = bool(settings.eval_frequency) and bool(val or downstream)
    sets = _choose_batches(val if has_validations or settings.eval_at_start else {}, settings.eval_steps)

    stop_step, notes = find_end(settings, passes, start_step, intervals=(save_every, keep_every))
    warnings: list[str] = []
    num_steps = stop_step - start_step
    eval_every = steps_between_validations(settings.eval_frequency, num_steps, steps_per_epoch)
    if has_validations and eval_every is not None:
        understood = _eval_frequency_note(settings.eval_frequency, eval_every, num_steps)
        notes += [*_clipped_notes(sets, settings.eval_steps), *understood]
        if _is_every_step(settings.eval_frequency) and num_steps > _MANY_STEPS:
            warnings += understood
    elif not val:
        notes += _nothing_to_validate_notes(settings, has_downstream=bool(downstream))
    plan = Plan(
        start_step=start_step,
        stop_step=stop_step,
        position=start_step,
        passes=passes,
        eval_every=eval_every if has_validations else None,
        val=sets,
        downstream=tuple(downstream.items()),
        save_every=saves.every,
        save_every_text=saves.text,
        keep_every=saves.keep_every,
        save_last=save_last,
        save_at_validations=save_at_validations,
        loop_settings=settings,
        notes=(*notes, *saves.notes),
        warnings=tuple(warnings),
    )
    return _with_note_on_saves(plan)


def _cut_passes(settings: TrainingSettings, num_micro_batches: int | None, start_micro_batch: int) -> Passes:
    start_micro_batch = _check_whole("start_micro_batch", start_micro_batch)
    if num_micro_batches is not None:
        num_micro_batches = _check_whole("num_micro_batches", num_micro_batches)
        if num_micro_batches == 0:
            remedy = "give it data; drop_last drops every sample of a data set that is smaller than a batch"
            raise refuse("num_micro_batches", 0, "a training dataloader of 1 micro-batch or more", remedy)
        if settings.grad_accum_steps > num_micro_batches:
            expected = f"at most {num_micro_batches}, the micro-batches of one pass over the training dataloader"
            raise refuse("grad_accum_steps", settings.grad_accum_steps, expected, "use fewer, or smaller micro-batches")
        if start_micro_batch > num_micro_batches:
            expected = f"at most {num_micro_batches}, the micro-batches of one pass over the training dataloader"
            raise refuse("start_micro_batch", start_micro_batch, expected)
    return Passes(
        num_micro_batches=num_micro_batches,
        grad_accum_steps=settings.grad_accum_steps,
        start_micro_batch=start_micro_batch,
    )


def _choose_batches(val: Mapping[str, int | None], eval_steps: int | None) -> tuple[PlannedSet, ...]:
    lengths = {
        name: length if length is None else _check_whole(f"val[{name!r}]", length) for name, length in val.items()
    }
    return tuple(
        PlannedSet(name, validation_batches(length, eval_steps, name), length) for name, length in lengths.items()
    )


def _clipped_notes(sets: Sequence[PlannedSet], eval_steps: int | None) -> list[str]:
    notes = (eval_steps_note(entry.length, eval_steps, entry.name) for entry in sets)
    return [note for note in notes if note is not None]


def _is_every_step(eval_frequency: int | float | str | None) -> bool:
    return eval_frequency == 1 and not isinstance(eval_frequency, float)


def _eval_frequency_note(eval_frequency: int | float | str | None, eval_every: int, num_steps: int) -> list[str]:
    """Return a line that explains an ``eval_frequency`` of 1, a fraction, or an interval longer than the fit."""
    given = f"eval_frequency={eval_frequency}"
    if _is_every_step(eval_frequency):
        return [f"{given}: after every step, {num_steps:,} in all; to validate once, at the end, use 1.0"]
    if eval_frequency == 1:
        return [f"{given}: once, at the end; to validate after every step, use 1"]
    if eval_every > num_steps:
        steps = f"{eval_every:,} steps, " if isinstance(eval_frequency, str) else ""
        return [f"{given}: {steps}more than the {num_steps:,} steps of this fit, so once, at the end"]
    if isinstance(eval_frequency, float):
        return [f"{given}: every {eval_every:,} of {num_steps:,} steps"]
    return []


def _with_note_on_saves(plan: Plan) -> Plan:
    """Add a note to a plan with more than 200 saves.

    The note is also a warning if ``save_at_validations`` adds saves, because this setting is on by default. A small
    ``save_every`` is set by the user and needs no warning.
    """
    if plan.num_saves <= _MANY_SAVES:
        return plan
    num_others = replace(plan, save_at_validations=False).num_saves
    remedies = ["checkpoint.at_validations=false"] if num_others < plan.num_saves else []
    remedies += ["a larger checkpoint.every_n_steps"] if num_others > _MANY_SAVES else []
    note = f"{plan.num_saves:,} checkpoints are saved; to save fewer, use {' and '.join(remedies)}"
    warnings = [note] if num_others < plan.num_saves else []
    return replace(plan, notes=(*plan.notes, note), warnings=(*plan.warnings, *warnings))


def _nothing_to_validate_notes(settings: TrainingSettings, *, has_downstream: bool) -> list[str]:
    """Return a line for each setting that has no effect because there is no validation dataloader."""
    given: list[tuple[str, object]] = [] if not settings.eval_at_start else [("eval_at_start", "true")]
    if not has_downstream:
        frequency = settings.eval_frequency
        is_default = isinstance(frequency, float) and frequency == 1
        given += [("eval_frequency", None if is_default else frequency), ("eval_steps", settings.eval_steps)]
    return [f"{name}={value} has no effect: there is no validation dataloader" for name, value in given if value]


def _check_whole(name: str, value: object) -> int:
    expected = "a whole number, 0 or more"
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise refuse_type(name, value, expected)
    if value < 0:
        raise refuse(name, value, expected)
    return int(value)
