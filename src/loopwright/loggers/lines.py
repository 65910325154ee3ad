"""Functions that format plans, steps, metrics, rates and durations as text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from loopwright.hooks import AddsPlanNotes, RepeatsFirstBatch
from loopwright.plan import Plan, describe

# Timings that are shown after the steps per second: name, factor and unit. Only the first logged timing of each group
# is shown.
_TIMINGS = (
    (("train/items_per_second", 1, "items/s"), ("train/samples_per_second", 1, "samples/s")),
    (("train/flops_utilisation_fraction", 100, "% of peak"), ("train/teraflops_per_second", 1, "TFLOP/s")),
    (("train/data_stall_fraction", 100, "% data wait"),),
)


def plan_text(
    plan: Plan, train_dataloader: Any, learning_rate: str | None = None, callbacks: Iterable[object] = ()
) -> str:
    """Describe a plan.

    Args:
        plan: plan of a fit.
        train_dataloader: training dataloader. Without an integer attribute ``batch_size``, samples are not counted.
        learning_rate: one line that describes the learning rate. If None, the line is left out.
        callbacks: callbacks of the run. A callback may repeat the first micro-batch, or add notes to the plan.
    """
    callbacks = tuple(callbacks)
    batch_size, num_samples = sizes_of(train_dataloader, plan.num_micro_batches)
    return describe(
        with_notes(plan, callbacks),
        batch_size=batch_size,
        num_samples=num_samples,
        columns=columns_of(train_dataloader),
        learning_rate=learning_rate,
        repeats_first_batch=any(isinstance(callback, RepeatsFirstBatch) for callback in callbacks),
    )


def with_notes(plan: Plan, callbacks: Iterable[object]) -> Plan:
    """Return a copy of ``plan`` in which the notes of the callbacks precede the notes of the plan."""
    added = [note for callback in callbacks if isinstance(callback, AddsPlanNotes) for note in callback.plan_notes]
    return replace(plan, notes=(*added, *plan.notes)) if added else plan


def sizes_of(dataloader: Any, num_micro_batches: int | None) -> tuple[int | None, int | None]:
    """Return the number of samples in a full micro-batch and in one pass. An unknown number is None."""
    batch_size = getattr(dataloader, "batch_size", None)
    if not isinstance(batch_size, int):
        return None, None
    try:
        num_samples = len(dataloader.dataset)
    except (AttributeError, TypeError, NotImplementedError):
        return batch_size, None
    reads_all = math.ceil(num_samples / batch_size) == num_micro_batches  # False if a pass skips some samples
    return batch_size, num_samples if reads_all else None


def columns_of(dataloader: Any) -> str | None:
    """Return the attribute ``columns_text`` of the data set, a line about the columns of a table; None if missing."""
    text = getattr(getattr(dataloader, "dataset", None), "columns_text", None)
    return text if isinstance(text, str) else None


def step_text(step: int, stop_step: int | None) -> str:
    """Format a step number: ``step 120/2000``, or ``step 120`` if ``stop_step`` is None."""
    return f"step {step}" if stop_step is None else f"step {step}/{stop_step}"


def metrics_text(metrics: Mapping[str, float]) -> str:
    """Format names and values, separated by two spaces: ``val/loss 0.4137  val/accuracy 0.9722``."""
    return "  ".join(f"{name} {number_text(value)}" for name, value in metrics.items())


def number_text(value: float) -> str:
    """Format a number with four significant digits.

    A nonzero magnitude below 0.001 or of at least 10,000 is written with an exponent, such as ``1.234e+05``.
    """
    if not math.isfinite(value):
        return str(value)
    return f"{value:.3e}" if value and not 1e-3 <= abs(value) < 1e6 else f"{value:.4g}"


def rate_text(steps_per_second: float) -> str:
    """Format a rate as steps per second. Use seconds per step for a rate below 1, and "" for a rate of 0."""
    if steps_per_second >= 1:
        return f"{steps_per_second:.3g} steps/s" if steps_per_second < 1000 else f"{steps_per_second:.0f} steps/s"
    return f"{1 / steps_per_second:.3g} s/step" if steps_per_second > 0 else ""


def timing_text(timing: Mapping[str, float]) -> str:
    """Format the rates and fractions that callbacks have logged: ``4,200 items/s  41 % of peak  2.5 % data wait``."""
    known = [[each for each in group if each[0] in timing][:1] for group in _TIMINGS]
    return "  ".join(f"{_short(timing[name] * factor)} {unit}" for each in known for name, factor, unit in each)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def duration_text(seconds: float) -> str:
    """Format a duration as hours, minutes and seconds: ``0:07``, ``12:34``, ``1:02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def epoch_number(plan: Plan, steps_per_epoch: int | None, step: int) -> int:
    """Return the number of the epoch that contains the step after ``step`` completed steps, counted from 1."""
    step = max(plan.start_step, min(step, plan.stop_step - 1))
    if plan.stop_step <= plan.start_step:
        return 1
    if steps_per_epoch is not None:
        return (step - plan.start_step) // steps_per_epoch + 1
    return plan.window(step).pass_index + 1
