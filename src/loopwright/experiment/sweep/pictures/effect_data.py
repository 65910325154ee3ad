"""Functions that compute the effects of factors and the progress of a search for the pictures of a sweep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from loopwright.experiment.sweep.index import Factor, Group, JobEntry, SweepIndex, mean_and_deviation, with_results
from loopwright.experiment.sweep.pictures.factor_values import (
    bins,
    groups_by_value,
    is_number,
    short_names,
    value_key,
    value_texts,
)
from loopwright.experiment.sweep.pictures.picture_data import MAX_BINS

_MAX_VALUES = 12  # the effect of an interval with more values is averaged over bins
_DECADE = 10.0 * (1 - 1e-9)  # ratio from which a list of values has a logarithmic axis; 0.01 / 0.001 is not exactly 10

Scale = Literal["log", "linear", "category"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectPoint:
    """The mean of the objective over the groups with one value of a factor, or with values in one bin.

    Attributes:
        position: position on the axis of the factor.
        mean: mean over the groups.
        deviation: standard deviation over groups or seeds; None if there is only one.
    """

    position: float
    mean: float
    deviation: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """The objective against the values of one factor. Groups without a result are left out.

    Attributes:
        name: short name of the factor.
        scale: scale of the axis of the factor. On a "category" axis, values have the positions 0, 1, 2, …
        ticks: pairs ``(position, label)`` of the values; empty for an interval.
        points: means in ascending order of their positions.
        lines: pairs ``(position, mean)`` of the groups; one line for each combination of values of the other factors.
        is_ordered: whether the values are numbers, so that a line through the means has a meaning.
        is_binned: whether the means are over bins.
        is_over_seeds: whether the deviations are over the seeds of a group. Otherwise, they are over groups.
    """

    name: str
    scale: Scale
    ticks: tuple[tuple[float, str], ...]
    points: tuple[EffectPoint, ...]
    lines: tuple[tuple[tuple[float, float], ...], ...]
    is_ordered: bool
    is_binned: bool
    is_over_seeds: bool


@dataclass(frozen=True, slots=True)
class Proposal:
    """One proposal of a search that has ended.

    Attributes:
        number: number of its group.
        state: "done", "pruned" or "failed".
        value: mean of the objective; None if the proposal is failed, and if a pruned job logged no objective.
    """

    number: int
    state: Literal["done", "pruned", "failed"]
    value: float | None


@dataclass(frozen=True, slots=True)
class SearchProgress:
    """The progress of a search.

    Attributes:
        proposals: proposals that have ended, in the order of their numbers.
        best: pairs ``(number, value)`` of each done proposal, with the best value up to this proposal.
    """

    proposals: tuple[Proposal, ...]
    best: tuple[tuple[int, float], ...]

    @property
    def best_number(self) -> int | None:
        """Number of the first proposal with the best value; None if no proposal is done."""
        return next((number for number, value in self.best if value == self.best[-1][1]), None)


def effects(index: SweepIndex) -> list[Effect]:
    """Return the effect of each factor on the objective; an empty list if no group has a result."""
    groups = [group for group in with_results(index).groups if is_number(group.mean)]
    return [_effect(index.factors, at, groups) for at in range(len(index.factors))] if groups else []


def search_progress(index: SweepIndex) -> SearchProgress | None:
    """Return the progress of a search; None if the sweep is not a search, and if no proposal has ended.

    A proposal counts as failed if one of its jobs failed or has no finite objective.
    """
    if index.settings.get("search") not in ("random", "tpe") or not index.factors:
        return None
    found = [_proposal(group, index.jobs_of(group.number)) for group in with_results(index).groups]
    proposals = tuple(proposal for proposal in found if proposal is not None)
    better = max if index.objective.mode == "max" else min
    best: list[tuple[int, float]] = []
    for proposal in proposals:
        if proposal.state == "done" and proposal.value is not None:
            best.append((proposal.number, better(proposal.value, best[-1][1]) if best else proposal.value))
    return SearchProgress(proposals, tuple(best)) if proposals else None


def _proposal(group: Group, jobs: Sequence[JobEntry]) -> Proposal | None:
    if any(job.state == "failed" or (job.state == "done" and not is_number(job.objective)) for job in jobs):
        return Proposal(group.number, "failed", None)
    if any(job.state == "pruned" for job in jobs):
        values = [job.objective for job in jobs if job.objective is not None and is_number(job.objective)]
        return Proposal(group.number, "pruned", mean_and_deviation(values)[0])
    if jobs and all(job.state == "done" for job in jobs):
        return Proposal(group.number, "done", group.mean)
    return None


def _effect(factors: Sequence[Factor], at: int, groups: Sequence[Group]) -> Effect:
    factor = factors[at]
    by_value = groups_by_value(factor, groups)
    scale = _scale(factor, [value for value, _ in by_value])
    values = _axis_values(factor, [value for value, _ in by_value])
    positions = {key: place if scale == "category" else float(values[key]) for place, key in enumerate(values)}
    is_interval = factor.values is None and scale != "category"
    placed = [(positions[value_key(value)], found) for value, found in by_value]
    placed.sort(key=lambda pair: pair[0])
    is_binned = is_interval and len(placed) > _MAX_VALUES
    parts = bins(placed, MAX_BINS) if is_binned else [[pair] for pair in placed]
    is_over_seeds = all(sum(len(found) for _, found in part) == 1 for part in parts)
    ticks = () if is_interval else tuple((positions[key], text) for key, text in value_texts(values.values()).items())
    others = [other for other in factors if other is not factor]
    return Effect(
        name=short_names(factors)[at],
        scale=scale,
        ticks=ticks,
        points=tuple(_point(part, scale, is_over_seeds) for part in parts),
        lines=_lines(placed, others),
        is_ordered=all(is_number(value) for value in values.values()),
        is_binned=is_binned,
        is_over_seeds=is_over_seeds,
    )


def _scale(factor: Factor, found: Sequence[Any]) -> Scale:
    """Return the scale of the axis of a factor, which depends on its interval or its values."""
    values = [*(factor.values or ()), *found]
    if not all(is_number(value) for value in values):
        return "category"
    if factor.values is None:
        return "log" if factor.is_log and min(values) > 0 else "linear"
    return "log" if min(values) > 0 and max(values) / min(values) >= _DECADE else "category"


def _axis_values(factor: Factor, found: Sequence[Any]) -> dict[str, Any]:
    """Return the values of a factor in the order of their positions. Numbers are in ascending order."""
    values = {value_key(value): value for value in (*(factor.values or ()), *found)}
    if all(is_number(value) for value in values.values()):
        return dict(sorted(values.items(), key=lambda item: item[1]))
    return values


def _point(part: Sequence[tuple[float, Sequence[Group]]], scale: Scale, is_over_seeds: bool) -> EffectPoint:
    groups = [group for _, found in part for group in found]
    mean, deviation = mean_and_deviation([group.mean for group in groups if group.mean is not None])
    assert mean is not None
    if scale == "log":
        position = math.exp(math.fsum(math.log(place) for place, _ in part) / len(part))
    else:
        position = math.fsum(place for place, _ in part) / len(part)
    return EffectPoint(
        position=part[0][0] if len(part) == 1 else position,
        mean=mean,
        deviation=groups[0].deviation if is_over_seeds else deviation,
    )


def _lines(
    placed: Sequence[tuple[float, Sequence[Group]]], others: Sequence[Factor]
) -> tuple[tuple[tuple[float, float], ...], ...]:
    """Return a line through the groups with equal values of the other factors, for each combination of these values."""
    lines: dict[tuple[str, ...], list[tuple[float, float]]] = {}
    for place, groups in placed:
        for group in groups:
            key = tuple(value_key(group.values.get(other.key)) for other in others)
            assert group.mean is not None
            lines.setdefault(key, []).append((place, group.mean))
    return tuple(tuple(line) for line in lines.values())
