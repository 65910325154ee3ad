"""`ValidationView` and `FitView`: format the progress of a validation or a fit for the terminal and for logs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from loopwright.loggers.lines import (
    duration_text,
    epoch_number,
    metrics_text,
    number_text,
    rate_text,
    step_text,
    timing_text,
)

if TYPE_CHECKING:
    from loopwright.plan import Plan
    from loopwright.trainer import Trainer

_NARROW = 70  # columns of a terminal; in a narrower one, the live line begins with the step, the time and the loss
_LEAST_SECONDS = 10.0  # shortest time over which the rate of a fit is measured
_MAX_MARKS = 10_000  # largest number of stored times and steps


@dataclass(slots=True, eq=False)
class ValidationView:
    """Progress of the validation of one dataloader.

    Args:
        name: name of the validation set.
        num_batches: number of batches to validate; None if the number is unknown.
    """

    name: str
    num_batches: int | None
    num_done: int = 0
    began_seconds: float = field(default_factory=time.monotonic)

    def text(self) -> str:
        """Return the progress: ``validating val 12/79``, or ``validating val`` before the first counted batch.

        A batch hook counts the batches. If a custom loop calls no batch hooks, no batch is counted.
        """
        if not self.num_done:
            return f"validating {self.name}"
        return f"validating {self.name} {self.num_done}{'' if self.num_batches is None else f'/{self.num_batches}'}"

    def live_text(self, width: int) -> str:
        """Return the progress and, if it can be estimated, the remaining time."""
        if not self.num_done or self.num_batches is None:
            return self.text()
        seconds = (time.monotonic() - self.began_seconds) / self.num_done * (self.num_batches - self.num_done)
        return f"{self.text()}  {duration_text(seconds)} left"

    def done_and_total(self) -> tuple[int, int]:
        """Return (number of validated batches, number of all batches). An unknown number of all batches is 0."""
        return self.num_done, self.num_batches or 0


@dataclass(slots=True, eq=False)
class FitView:
    """Progress of a fit, and progress of a validation that runs within the fit."""

    trainer: Trainer
    plan: Plan
    steps_per_epoch: int | None
    training: Mapping[str, float] = field(default_factory=dict)
    validation: Mapping[str, float] = field(default_factory=dict)
    steps_per_second: float | None = None
    timing: Mapping[str, float] = field(default_factory=dict)
    inside: ValidationView | None = None
    has_unprinted: bool = False
    next_line_seconds: float = 0.0
    pace: Pace = field(default_factory=lambda: Pace())

    def line(self) -> str:
        """Return the progress of training as one line for printing."""
        step = self.trainer.global_step
        return _joined(
            *self._place(step),
            f"{100 * step // max(self.plan.stop_step, 1)} %",
            *self._pace(step),
            metrics_text(dict(sorted(self.training.items(), key=lambda item: not item[0].startswith("train/")))),
        )

    def live_text(self, width: int) -> str:
        """Return the progress for the live line.

        Losses come before other metrics, because the terminal may truncate the end of the line. During a validation,
        the progress of the validation replaces the training rates. In a narrow terminal, the step, the remaining time
        and the loss come first, without the epoch.
        """
        step, inside = self.trainer.global_step, self.inside
        pace = self._pace(step) if inside is None else [inside.text(), *self._pace(step)[1:]]
        metrics = {**self.training, **self.validation}
        losses = {name: value for name, value in metrics.items() if name.endswith("/loss")}
        if width >= _NARROW:
            return _joined(*self._place(step), *pace, metrics_text({**losses, **metrics}))
        loss = next((f"loss {number_text(value)}" for value in losses.values()), "")
        return _joined(f"{step}/{self.plan.stop_step}", *pace[1:], loss, *pace[:1])

    def done_and_total(self) -> tuple[int, int]:
        """Return (number of steps completed in this fit, number of all steps of this fit)."""
        return self.trainer.global_step - self.plan.position, self.plan.total_steps

    def _place(self, step: int) -> tuple[str, str]:
        epoch = epoch_number(self.plan, self.steps_per_epoch, step)
        return f"epoch {epoch}", step_text(step, self.plan.stop_step)

    def _pace(self, step: int) -> list[str]:
        """Return the training rates and the remaining time. The remaining time includes validations and saves."""
        rate = self.pace.steps_per_second(step - self.plan.position, time.monotonic())
        if rate is None:
            return []
        left = duration_text((self.plan.stop_step - step) / rate)
        rates = _joined(rate_text(self.steps_per_second or rate), timing_text(self.timing))
        return [rates, f"{left} left"]


@dataclass(slots=True, eq=False)
class Pace:
    """Rate of a fit in the last tenth of its time. An early part that was slower does not distort the remaining time.

    Args:
        began_seconds: time at which the fit began.
    """

    began_seconds: float = field(default_factory=time.monotonic)
    _marks: list[tuple[float, int]] = field(default_factory=list)

    def steps_per_second(self, num_done: int, now_seconds: float) -> float | None:
        """Return the number of steps per second; None before the first step.

        Args:
            num_done: number of steps that the fit has completed.
            now_seconds: current time.
        """
        passed = now_seconds - self.began_seconds
        if num_done <= 0 or passed <= 0:
            return None
        begin = now_seconds - max(_LEAST_SECONDS, passed / 10)
        # A new list is built, because the thread of the live line may be reading the old list.
        older = [mark for mark in self._marks if mark[0] <= begin][-1:]
        self._marks = [*older, *(mark for mark in self._marks if mark[0] > begin), (now_seconds, num_done)][
            -_MAX_MARKS:
        ]
        since_seconds, since = older[0] if older else (self.began_seconds, 0)
        if num_done <= since or now_seconds <= since_seconds:
            return num_done / passed
        return (num_done - since) / (now_seconds - since_seconds)


def _joined(*parts: str) -> str:
    return "  ".join(part for part in parts if part)
