"""`Pruner`, which decides whether a running job is stopped early, and the rules median, percentile and hyperband.

All rules compare the best value of the job up to a step with the best values of other jobs up to the same step. They
count the jobs that are better, and compute no averages, so the scale of the objective has no influence.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from loopwright.errors import did_you_mean, refuse

_MIN_OTHERS = 4  # `RankPruner` stops no job that has fewer other jobs to compare with
_SHARE = 3  # `HalvingPruner`: one of this number of jobs passes a rung


class Pruner(Protocol):
    """Decides whether a running job is stopped early."""

    def should_prune(self, job_values: Mapping[int, float], others: Sequence[Mapping[int, float]]) -> bool:
        """Return whether the job should stop now. Called after each validation of the job except the last.

        Args:
            job_values: objective of the job at each validation so far, by ``global_step``.
            others: objectives of the jobs with the same seed in all other groups, by ``global_step``.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RankPruner:
    """Stops a job if more than a fraction of the other jobs had a better value up to the same step.

    With the fraction 0.5, this is the median stopping rule of Golovin et al., "Google Vizier: A Service for Black-Box
    Optimization" (2017), with two differences. The best values of the other jobs are compared, instead of their running
    averages, because a running average contains the high losses at the beginning. Unfinished jobs are also compared.

    Warm-up: no job is stopped while fewer than 4 other jobs have a value at the step of the job or at an earlier step.

    Args:
        mode: "min" or "max": whether a smaller or a larger objective is better.
        fraction: fraction of the other jobs, in [0, 1).
    """

    mode: str
    fraction: float

    def should_prune(self, job_values: Mapping[int, float], others: Sequence[Mapping[int, float]]) -> bool:
        """Return whether the job should stop now, as `Pruner` describes."""
        if not job_values:
            return False
        step = max(job_values)
        compared = [values for values in others if any(each <= step for each in values)]
        own = best_cost(job_values, step, self.mode)
        num_better = sum(best_cost(values, step, self.mode) < own for values in compared)
        return len(compared) >= _MIN_OTHERS and num_better > self.fraction * len(compared)


@dataclass(frozen=True, slots=True, kw_only=True)
class HalvingPruner:
    """Stops a job that is not in the best third, rounded up, of the jobs that have reached the same rung.

    The rungs of a job are its validations 1, 3, 9, 27 and so on. At each validation, the job is compared at its newest
    rung with all jobs that have reached the step of this rung. The method is asynchronous successive halving: Li et
    al., "A System for Massively Parallel Hyperparameter Tuning" (2020), with a reduction factor of 3 and with
    validations as the resource. In the paper, a job outside the best third is paused and can continue later. Here, it
    is stopped. Hyperband (Li et al., 2018) runs successive halving in several brackets, whose first rungs differ. Only
    the first bracket is used here, which stops jobs earliest.

    Warm-up: no job is stopped while fewer than 2 other jobs have reached the rung.

    Args:
        mode: "min" or "max": whether a smaller or a larger objective is better.
    """

    mode: str

    def should_prune(self, job_values: Mapping[int, float], others: Sequence[Mapping[int, float]]) -> bool:
        """Return whether the job should stop now, as `Pruner` describes."""
        if not job_values:
            return False
        *_, rung = _rungs(len(job_values))
        step = sorted(job_values)[rung - 1]
        compared = [values for values in others if values and min(values) <= step <= max(values)]
        own = best_cost(job_values, step, self.mode)
        num_better = sum(best_cost(values, step, self.mode) < own for values in compared)
        num_jobs = len(compared) + 1
        return num_jobs >= _SHARE and num_better >= num_jobs / _SHARE


def _rungs(num_validations: int) -> Iterator[int]:
    """Yield 1, 3, 9, … up to ``num_validations``."""
    rung = 1
    while rung <= num_validations:
        yield rung
        rung *= _SHARE


def best_cost(values: Mapping[int, float], step: int, mode: str) -> float:
    """Return the best value up to ``step``, with its sign changed if ``mode`` is "max".

    Smaller results are better. Values that are not finite are ignored; infinity is returned if no value remains.
    """
    sign = -1.0 if mode == "max" else 1.0
    costs = (sign * value for at, value in values.items() if at <= step and math.isfinite(value))
    return min(costs, default=math.inf)


def make_pruner(name: str, mode: str) -> Pruner | None:
    """Return the pruner for the setting ``sweep.pruner``.

    Args:
        name: "none"; "median", which stops a job if more than half of the others were better; "percentile", which
            stops a job if more than three quarters of the others were better; or "hyperband" (`HalvingPruner`).
        mode: "min" or "max": whether a smaller or a larger objective is better.

    Returns:
        The pruner; None for "none".

    Raises:
        SettingError: for any other name.
    """
    pruners: dict[str, Pruner | None] = {
        "none": None,
        "median": RankPruner(mode=mode, fraction=0.5),
        "percentile": RankPruner(mode=mode, fraction=0.75),
        "hyperband": HalvingPruner(mode=mode),
    }
    if name not in pruners:
        expected = "none, median, percentile or hyperband"
        raise refuse("sweep.pruner", name, expected, did_you_mean(name, pruners).strip())
    return pruners[name]
