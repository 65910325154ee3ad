"""`metric_values`, which places the last and the best values of the metrics of several runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loopwright.errors import SettingError
from loopwright.plan import settle_mode
from loopwright.records.run_record import RunRecord
from loopwright.records.series import Series


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricValues:
    """The values of one metric in several runs. A value is None if a run has not logged the metric.

    Attributes:
        name: name of the metric.
        last: last value in each run.
        best: best value in each run; None if it is not known whether a smaller value is better.
        best_steps: step of the best value in each run.
    """

    name: str
    last: tuple[float | None, ...]
    best: tuple[float | None, ...]
    best_steps: tuple[int | None, ...]


def metric_values(runs: Sequence[RunRecord], series: Sequence[Mapping[str, Series]]) -> list[MetricValues]:
    """Return the metrics of several runs. The objectives are first, then the validation metrics, then all others.

    Args:
        runs: runs to compare.
        series: logged metrics of each run by name; empty if they cannot be read. The best value of an objective is
            then read from the summary.
    """
    names = {name: None for run, logged in zip(runs, series, strict=True) for name in (*run.metrics, *logged)}
    objectives = {run.objective_name for run in runs}
    ordered = sorted(names, key=lambda name: (name not in objectives, not name.startswith("val/")))
    return [_values(name, runs, series) for name in ordered]


def mode_of(name: str, recorded: Mapping[str, str | None]) -> str | None:
    """Return "min" or "max" for a metric; None if it is not known which values are better.

    Args:
        name: name of the metric.
        recorded: recorded modes by the name of the objective.
    """
    if (mode := recorded.get(name)) is not None:
        return mode
    if name.endswith("accuracy"):
        return "max"
    try:
        return settle_mode(None, name)
    except SettingError:  # the name does not show which values are better
        return None


def _values(name: str, runs: Sequence[RunRecord], series: Sequence[Mapping[str, Series]]) -> MetricValues:
    mode = mode_of(name, {run.objective_name: run.objective_mode for run in runs if run.objective_mode is not None})
    best = [_best(name, mode, run, logged) for run, logged in zip(runs, series, strict=True)]
    return MetricValues(
        name=name,
        last=tuple(_last(name, run, logged) for run, logged in zip(runs, series, strict=True)),
        best=tuple(None if each is None else each[1] for each in best),
        best_steps=tuple(None if each is None else each[0] for each in best),
    )


def _last(name: str, run: RunRecord, logged: Mapping[str, Series]) -> float | None:
    if name in run.metrics:
        return run.metrics[name]
    return logged[name].values[-1] if name in logged else None


def _best(name: str, mode: str | None, run: RunRecord, logged: Mapping[str, Series]) -> tuple[int, float] | None:
    if name in logged:
        return None if mode is None else logged[name].best(mode)
    return (run.best.step, run.best.value) if run.best is not None and run.best.name == name else None
