"""`StoppingRule`: decides from the values of a metric whether `EarlyStopping` stops a run."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from loopwright.errors import check_count, refuse, refuse_type


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Summary of the values of a metric so far. Before the first validation, values and steps are None.

    Attributes:
        best: best value so far.
        best_step: step of the best value.
        last: most recent value.
        last_step: step of the most recent value.
        num_not_better: number of validations since the best value; 0 before the first validation.
    """

    best: float | None = None
    best_step: int | None = None
    last: float | None = None
    last_step: int | None = None
    num_not_better: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StoppingRule:
    """Decides when to stop a run. The fields are the arguments of `EarlyStopping`.

    Raises:
        SettingError: if a field is invalid.
    """

    monitor: str
    mode: str
    patience: int
    min_delta: float
    divergence_threshold: float | None

    def __post_init__(self) -> None:
        """Check the settings."""
        expected = "the name of a metric, such as 'val/loss'"
        if not isinstance(self.monitor, str):
            raise refuse_type("monitor", self.monitor, expected)
        if not self.monitor.strip():
            raise refuse("monitor", self.monitor, expected)
        check_count("patience", self.patience, "a whole number of validations, 1 or more")
        _check_number("min_delta", self.min_delta, "a finite number, 0 or more")
        if self.min_delta < 0:
            raise refuse("min_delta", self.min_delta, "a finite number, 0 or more")
        if self.divergence_threshold is not None:
            _check_number("divergence_threshold", self.divergence_threshold, "a number, or null to turn it off")

    def after(self, seen: Seen, value: float, step: int) -> Seen:
        """Return ``seen``, updated with the metric's ``value`` at ``step``.

        A second value at the same step is ignored, so that a repeated validation is counted once.
        """
        if step == seen.last_step:
            return seen
        if seen.best is None or self._is_better(value, seen.best):
            return Seen(best=value, best_step=step, last=value, last_step=step)
        return replace(seen, last=value, last_step=step, num_not_better=seen.num_not_better + 1)

    def reason(self, seen: Seen) -> str | None:
        """Return the reason to stop the run, or None if it should continue."""
        if seen.last is None:
            return None
        now = f"{self.monitor} is {seen.last:.6g} after step {seen.last_step}"
        if not math.isfinite(seen.last):
            return f"{now}, which is not finite"
        threshold = self.divergence_threshold
        if threshold is not None and self._sign * seen.last > self._sign * threshold:
            return f"{now}, worse than divergence_threshold={threshold:g}"
        if seen.num_not_better < self.patience:
            return None
        by = f" by more than {self.min_delta:g}" if self.min_delta else ""
        since = f"{seen.num_not_better} validation{'s' if seen.num_not_better > 1 else ''}"
        return f"{now}; the best value, {seen.best:.6g} after step {seen.best_step}, was not improved{by} in {since}"

    def larger_patience(self, seen: Seen) -> int | None:
        """Return a patience with which this rule would not stop the run; None if every patience stops the run."""
        patience = 2 * max(self.patience, seen.num_not_better)
        return patience if replace(self, patience=patience).reason(seen) is None else None

    @property
    def _sign(self) -> int:
        return 1 if self.mode == "min" else -1

    def _is_better(self, value: float, best: float) -> bool:
        return self._sign * (best - value) > self.min_delta


def _check_number(setting: str, value: object, expected: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refuse_type(setting, value, expected)
    if not math.isfinite(value):
        raise refuse(setting, value, expected)
