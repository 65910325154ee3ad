"""`ValidationView` and `FitView`: format the progress of a validation or a fit for the terminal and for logs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from loopwright.loggers.lines import duration_text, epoch_number, metrics_text, rate_text, step_text, timing_text

if TYPE_CHECKING:
    from loopwright.plan import Plan
    from loopwright.trainer import Trainer


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

    def live_text(self) -> str:
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
    began_seconds: float = field(default_factory=time.monotonic)

    def line(self) -> str:
        """Return the progress of training as one line for printing."""
        step = self.trainer.global_step
        return _joined(
            *self._place(step),
            f"{100 * step // max(self.plan.stop_step, 1)} %",
            *self._pace(step),
            metrics_text(dict(sorted(self.training.items(), key=lambda item: not item[0].startswith("train/")))),
        )

    def live_text(self) -> str:
        """Return the progress for the live line.

        Losses come before other metrics, because the terminal may truncate the end of the line. During a validation,
        the progress of the validation replaces the training rates.
        """
        step, inside = self.trainer.global_step, self.inside
        pace = self._pace(step) if inside is None else [inside.text(), *self._pace(step)[1:]]
        metrics = {**self.training, **self.validation}
        losses = {name: value for name, value in metrics.items() if name.endswith("/loss")}
        return _joined(*self._place(step), *pace, metrics_text({**losses, **metrics}))

    def done_and_total(self) -> tuple[int, int]:
        """Return (number of steps completed in this fit, number of all steps of this fit)."""
        return self.trainer.global_step - self.plan.position, self.plan.total_steps

    def _place(self, step: int) -> tuple[str, str]:
        epoch = epoch_number(self.plan, self.steps_per_epoch, step)
        return f"epoch {epoch}", step_text(step, self.plan.stop_step)

    def _pace(self, step: int) -> list[str]:
        """Return the training rates and the remaining time. The remaining time includes validations and saves."""
        num_done, seconds = step - self.plan.position, time.monotonic() - self.began_seconds
        if num_done <= 0 or seconds <= 0:
            return []
        rate = num_done / seconds
        left = duration_text((self.plan.stop_step - step) / rate)
        rates = _joined(rate_text(self.steps_per_second or rate), timing_text(self.timing))
        return [rates, f"{left} left"]


def _joined(*parts: str) -> str:
    return "  ".join(part for part in parts if part)
