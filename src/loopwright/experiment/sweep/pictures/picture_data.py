"""Functions that compute the learning curves of a sweep for its pictures.

The data contain no colours and no sizes, so that pictures in different formats show equal data. All titles and labels
are shortened and consist of printable characters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from loopwright.errors import CheckpointError
from loopwright.experiment.sweep.index import Factor, Group, SweepIndex
from loopwright.experiment.sweep.pictures.factor_values import (
    bins,
    groups_by_value,
    is_number,
    short_names,
    value_key,
    value_texts,
)
from loopwright.records import read_series

MAX_POINTS = 300  # maximum number of points of a curve
MAX_PANELS = 12  # maximum number of panels of learning curves
MAX_BINS = 6  # maximum number of bins for the values of an interval
_STEPS = range(1 << 53)  # steps that are drawn; larger integers are not exact on the axis of a picture
_LOG_RANGE = 20.0  # losses have a logarithmic axis if the largest divided by the smallest exceeds this ratio

Points = tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCurve:
    """The objective of one job.

    Attributes:
        job: number of the job.
        group: number of the group of the job.
        seed: seed of the job.
        is_failed: whether the job failed.
        points: pairs ``(global_step, value)`` in ascending order of their steps. Values can be NaN.
    """

    job: int
    group: int
    seed: int
    is_failed: bool
    points: Points

    @property
    def end(self) -> tuple[int, float] | None:
        """Last point with a finite value; None if no value is finite."""
        return next((point for point in reversed(self.points) if math.isfinite(point[1])), None)


@dataclass(frozen=True, slots=True)
class MeanCurve:
    """The mean of the curves of one group, without the curves of failed jobs."""

    group: int
    points: Points


@dataclass(frozen=True, slots=True)
class CurvePanel:
    """The curves of the groups with one value of the first factor, or with values of an interval in one bin.

    Attributes:
        title: setting and value, such as ``lr=0.01`` or ``lr from 0.01 to 0.05``.
        curves: curves of the jobs.
        means: mean of each group that has several curves, if at least one of them is of a job that did not fail.
    """

    title: str
    curves: tuple[JobCurve, ...]
    means: tuple[MeanCurve, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningCurves:
    """The learning curves of a sweep.

    Attributes:
        panels: at most `MAX_PANELS` panels.
        num_more_values: number of values of the first factor that have no panel.
        styles: index of the style of each group. Groups with equal styles have equal values of all factors but the
            first. If the panels are bins, the groups of each panel are numbered instead.
        labels: values of all factors but the first, in the order of the styles; empty if the panels are bins.
        is_log: whether the axis of the objective is logarithmic.
    """

    panels: tuple[CurvePanel, ...]
    num_more_values: int
    styles: Mapping[int, int]
    labels: tuple[str, ...]
    is_log: bool


def read_points(directory: Path, index: SweepIndex) -> dict[int, Points]:
    """Read the objective of each job from its run directory, by the number of the job.

    Infinite values become NaN. Jobs without a finite value, and jobs whose run directory cannot be read, are left out.
    """
    found = {}
    for job in index.jobs:
        if job.state in ("pending", "skipped"):
            continue
        try:
            series = read_series(directory / job.directory).get(index.objective.name)
        except CheckpointError:
            continue
        pairs = () if series is None else zip(series.steps, series.values, strict=True)
        points = tuple((step, value if is_number(value) else math.nan) for step, value in pairs if step in _STEPS)
        if any(math.isfinite(value) for _, value in points):
            found[job.number] = points
    return found


def learning_curves(index: SweepIndex, points: Mapping[int, Points]) -> LearningCurves:
    """Return the curves of the jobs in one panel per value of the first factor.

    The values of an interval are divided into at most `MAX_BINS` panels with nearly equal numbers of values.

    Args:
        index: index of the sweep.
        points: points of each job, as returned by `read_points`.
    """
    with_points = {job.group for job in index.jobs if job.number in points}
    titled, is_binned = _panels(index, [group for group in index.groups if group.number in with_points])
    panels = tuple(_panel(title, groups, index, points) for title, groups in titled[:MAX_PANELS])
    shown = sorted((group for _, groups in titled[:MAX_PANELS] for group in groups), key=lambda group: group.number)
    styles, labels = _styles(shown, index.factors)
    if is_binned:
        styles, labels = {group.number: at for _, groups in titled for at, group in enumerate(groups)}, ()
    values = [value for panel in panels for curve in panel.curves for _, value in curve.points]
    return LearningCurves(
        panels=panels,
        num_more_values=max(0, len(titled) - MAX_PANELS),
        styles=styles,
        labels=labels,
        is_log=needs_log(values, index.objective.mode),
    )


def _styles(groups: Sequence[Group], factors: Sequence[Factor]) -> tuple[dict[int, int], tuple[str, ...]]:
    """Return the index of the style of each group, and a label for each style."""
    styles: dict[int, int] = {}
    known: dict[tuple[str, ...], tuple[int, str]] = {}
    for group, label in zip(groups, _labels(groups, factors), strict=True):
        key = tuple(value_key(group.values.get(factor.key)) for factor in factors[1:])
        styles[group.number], _ = known.setdefault(key, (len(known), label))
    return styles, tuple(label for _, label in known.values())


def _labels(groups: Sequence[Group], factors: Sequence[Factor]) -> list[str]:
    """Return the values of all factors but the first, for each group."""
    labels: list[list[str]] = [[] for _ in groups]
    for name, factor in list(zip(short_names(factors), factors, strict=True))[1:]:
        values = [group.values.get(factor.key) for group in groups]
        texts = value_texts(values)
        for label, value in zip(labels, values, strict=True):
            label.append(f"{name}={texts[value_key(value)]}")
    return [", ".join(label) for label in labels]


def _panels(index: SweepIndex, groups: Sequence[Group]) -> tuple[list[tuple[str, list[Group]]], bool]:
    """Return the title and the groups of each panel, and whether the panels are bins of an interval."""
    if not index.factors:
        return ([("as configured", list(groups))] if groups else []), False
    factor, name = index.factors[0], short_names(index.factors)[0]
    by_value = groups_by_value(factor, groups)
    if factor.values is not None or len(by_value) <= MAX_BINS or not all(is_number(value) for value, _ in by_value):
        texts = value_texts(value for value, _ in by_value)
        return [(f"{name}={texts[value_key(value)]}", found) for value, found in by_value], False
    panels = []
    for part in bins(by_value, MAX_BINS):
        first, last = part[0][0], part[-1][0]
        title = f"{name}={first:.3g}" if first == last else f"{name} from {first:.3g} to {last:.3g}"
        panels.append((title, [group for _, found in part for group in found]))
    return panels, True


def _panel(title: str, groups: Sequence[Group], index: SweepIndex, points: Mapping[int, Points]) -> CurvePanel:
    curves, means = [], []
    for group in groups:
        jobs = [job for job in index.jobs_of(group.number) if job.number in points]
        good = [points[job.number] for job in jobs if job.state != "failed"]
        if len(jobs) > 1 and good:
            means.append(MeanCurve(group.number, decimated(mean_curve(good))))
        for job in jobs:
            curves.append(
                JobCurve(
                    job=job.number,
                    group=group.number,
                    seed=job.seed,
                    is_failed=job.state == "failed",
                    points=decimated(points[job.number]),
                )
            )
    return CurvePanel(title, tuple(curves), tuple(means))


def mean_curve(curves: Sequence[Points]) -> Points:
    """Return the mean of several curves, at the steps that all curves have."""
    by_step = [dict(curve) for curve in curves]
    steps = sorted(set(by_step[0]).intersection(*by_step[1:]))
    return tuple((step, sum(curve[step] for curve in by_step) / len(by_step)) for step in steps)


def decimated(points: Sequence[tuple[int, float]]) -> Points:
    """Reduce a curve to at most `MAX_POINTS` of its points, in the same order.

    The first and the last point are kept. The points between them are divided into buckets. The smallest and the
    largest finite value of each bucket are kept, and its first value that is not finite.
    """
    if len(points) <= MAX_POINTS:
        return tuple(points)
    is_finite = [math.isfinite(value) for _, value in points]
    num_inner, num_buckets = len(points) - 2, (MAX_POINTS - 2) // (2 if all(is_finite) else 3)
    kept = {0, len(points) - 1}
    for bucket in range(num_buckets):
        inner = range(1 + bucket * num_inner // num_buckets, 1 + (bucket + 1) * num_inner // num_buckets)
        finite = [at for at in inner if is_finite[at]]
        if finite:
            kept |= {min(finite, key=lambda at: points[at][1]), max(finite, key=lambda at: points[at][1])}
        if len(finite) < len(inner):
            kept.add(next(at for at in inner if not is_finite[at]))
    return tuple(points[at] for at in sorted(kept))


def needs_log(values: Sequence[float], mode: str) -> bool:
    """Return whether the axis of these values is logarithmic: positive losses whose ratios exceed 20."""
    finite = [value for value in values if math.isfinite(value)]
    return mode == "min" and bool(finite) and 0 < min(finite) < max(finite) / _LOG_RANGE
