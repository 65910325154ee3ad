"""`compare_sweeps`, which matches the groups of several sweeps by the values of their factors."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loopwright.experiment.sweep.index import Group, SweepIndex
from loopwright.experiment.sweep.tables.cell_text import headings, is_number, value_text
from loopwright.experiment.sweep.tables.comparison import Comparison, compare_jobs
from loopwright.experiment.sweep.tables.group_table import AS_CONFIGURED


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchedGroup:
    """The groups of several sweeps with equal values of all factors.

    Attributes:
        label: values of the factors, such as ``lr=0.01 dropout=0.2``.
        groups: group of each sweep; None if a sweep has no such group.
        comparisons: differences of each group from the group of the first sweep, on the seeds that both have done; None
            if one of the groups is missing, and if the sweeps have different objectives. The first entry is None.
    """

    label: str
    groups: tuple[Group | None, ...]
    comparisons: tuple[Comparison | None, ...]


def compare_sweeps(indexes: Sequence[SweepIndex], fixed: Sequence[Mapping[str, Any]]) -> list[MatchedGroup]:
    """Match the groups of several sweeps.

    Groups that all sweeps have are first. They are sorted from the best to the worst mean in the first sweep.

    Args:
        indexes: indexes of the sweeps.
        fixed: for each sweep, the values of the factors of the other sweeps, which it has not swept.
    """
    keys = factor_keys(indexes)
    found: dict[tuple[Any, ...], dict[int, Group]] = {}
    for place, (index, values) in enumerate(zip(indexes, fixed, strict=True)):
        counts: dict[tuple[Any, ...], int] = {}
        for group in index.groups:
            own = tuple(_comparable(group.values.get(key, values.get(key))) for key in keys)
            counts[own] = counts.get(own, 0) + 1  # a sweep can have two groups with equal values, such as 1 and 1.0
            found.setdefault((*own, counts[own]), {})[place] = group
    matched = [_matched(groups, indexes, fixed, keys) for groups in found.values()]
    return sorted(matched, key=lambda each: _order(each, indexes))


def factor_keys(indexes: Sequence[SweepIndex]) -> list[str]:
    """Return the keys of all factors, in the order of the sweeps."""
    return list(dict.fromkeys(factor.key for index in indexes for factor in index.factors))


def have_one_objective(indexes: Sequence[SweepIndex]) -> bool:
    """Return whether the jobs of all sweeps are compared by the same metric."""
    return all(index.objective == indexes[0].objective for index in indexes)


def label_of(group: Group, values: Mapping[str, Any], keys: Sequence[str]) -> str:
    """Return the values of the factors of a group, such as ``lr=0.01``; "as configured" if there is no factor.

    Args:
        group: group.
        values: values of factors that the sweep of the group has not swept.
        keys: keys of the factors.
    """
    known = {**values, **group.values}
    names = headings(keys)
    return " ".join(f"{names[key]}={value_text(known[key])}" for key in keys if key in known) or AS_CONFIGURED


def _matched(
    groups: Mapping[int, Group], indexes: Sequence[SweepIndex], fixed: Sequence[Mapping[str, Any]], keys: Sequence[str]
) -> MatchedGroup:
    first = min(groups)
    comparisons: list[Comparison | None] = [None] * len(indexes)
    if 0 in groups and have_one_objective(indexes):
        base, mode = indexes[0].jobs_of(groups[0].number), indexes[0].objective.mode
        for place in groups.keys() - {0}:
            comparisons[place] = compare_jobs(indexes[place].jobs_of(groups[place].number), base, mode)
    return MatchedGroup(
        label=label_of(groups[first], fixed[first], keys),
        groups=tuple(groups.get(place) for place in range(len(indexes))),
        comparisons=tuple(comparisons),
    )


def _order(matched: MatchedGroup, indexes: Sequence[SweepIndex]) -> tuple[Any, ...]:
    place, group = next((place, each) for place, each in enumerate(matched.groups) if each is not None)
    sign = -1.0 if indexes[place].objective.mode == "max" else 1.0
    return matched.groups.count(None), place, group.mean is None, sign * (group.mean or 0.0), group.number


def _comparable(value: Any) -> tuple[str, Any]:
    """Return a value that is equal for equal factors. 1 and 1.0 are equal, 1 and true are not."""
    if is_number(value):
        return ("number", value)
    if isinstance(value, float):
        return ("number", "NaN" if math.isnan(value) else value)
    return ("other", json.dumps(value, sort_keys=True, default=str))
