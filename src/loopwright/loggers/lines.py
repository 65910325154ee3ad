"""How progress is put into words: pure functions from numbers to text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from loopwright.plan import Plan, describe, in_ascii


def plan_text(plan: Plan, train_dataloader: Any, learning_rate: str | None = None) -> str:
    """The summary of a plan, in samples too where the training dataloader tells its batch size as torch's does."""
    batch_size, num_samples = sizes_of(train_dataloader, plan.num_micro_batches)
    return describe(plan, batch_size=batch_size, num_samples=num_samples, learning_rate=learning_rate)


def sizes_of(dataloader: Any, num_micro_batches: int | None) -> tuple[int | None, int | None]:
    """(samples of a full micro-batch, samples of a pass) of a dataloader; None for what it does not tell."""
    batch_size = getattr(dataloader, "batch_size", None)
    if not isinstance(batch_size, int):
        return None, None
    try:
        num_samples = len(dataloader.dataset)
    except (AttributeError, TypeError, NotImplementedError):
        return batch_size, None
    is_whole_pass = math.ceil(num_samples / batch_size) == num_micro_batches  # no drop_last, no sampler
    return batch_size, num_samples if is_whole_pass else None


def step_text(step: int, stop_step: int | None) -> str:
    """Where a run is: ``step 120/2000``, or ``step 120`` where there is no end."""
    return f"step {step}" if stop_step is None else f"step {step}/{stop_step}"


def metrics_text(metrics: Mapping[str, float]) -> str:
    """Names and values, two blanks between them: ``val/loss 0.4137  val/accuracy 0.9722``."""
    return "  ".join(f"{name} {number_text(value)}" for name, value in metrics.items())


def number_text(value: float) -> str:
    """Four significant digits, and no exponent in the everyday range."""
    if not math.isfinite(value):
        return str(value)
    return f"{value:.3e}" if value and not 1e-3 <= abs(value) < 1e6 else f"{value:.4g}"


def rate_text(steps_per_second: float) -> str:
    """Steps per second, or seconds per step where that is the larger number."""
    if steps_per_second >= 1:
        return f"{steps_per_second:.3g} steps/s" if steps_per_second < 1000 else f"{steps_per_second:.0f} steps/s"
    return f"{1 / steps_per_second:.3g} s/step" if steps_per_second > 0 else ""


def duration_text(seconds: float) -> str:
    """Hours, minutes and seconds: ``0:07``, ``12:34``, ``1:02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def epoch_number(plan: Plan, steps_per_epoch: int | None, step: int) -> int:
    """The epoch that the step after ``step`` belongs to, counted from 1 at the fit's start."""
    step = max(plan.start_step, min(step, plan.stop_step - 1))
    if plan.stop_step <= plan.start_step:
        return 1
    if steps_per_epoch is not None:
        return (step - plan.start_step) // steps_per_epoch + 1
    return plan.window(step).pass_index + 1


def encodable(text: str, encoding: str | None) -> str:
    """``text`` with other characters, or escapes, in place of those that an output of this encoding cannot show."""
    encoding = encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = in_ascii(text).encode(encoding, "backslashreplace").decode(encoding)
    return text
