"""Functions that compare the groups of a sweep with a baseline group, for each seed that both groups have done."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loopwright.experiment.sweep.index import Group, JobEntry, SweepIndex, has_result, mean_and_deviation

MIN_TEST_PAIRS = 6  # with fewer pairs, no p-value of the two-sided test can be below 0.05
_MAX_EXACT_PAIRS = 16  # 2**15 sums are computed for 16 pairs
_TOLERANCE = 1e-9  # relative; sums that are equal except for rounding count as equal


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Differences of the objective between a group and the baseline, one for each seed that both groups have done.

    Attributes:
        num_pairs: number of seeds that both groups have done.
        num_better: number of pairs in which the group is better than the baseline. Equal values are not better.
        mean: mean of the group minus the baseline; None without a pair.
        deviation: standard deviation of the differences, with n - 1 in the denominator; None with fewer than 2 pairs.
        p_value: two-sided p-value of the sign-flip test; None with fewer than 6 pairs.
    """

    num_pairs: int
    num_better: int
    mean: float | None
    deviation: float | None
    p_value: float | None


def compare(index: SweepIndex, group: int, baseline_group: int) -> Comparison:
    """Compare a group with the baseline group. Both are given by their numbers."""
    return compare_jobs(index.jobs_of(group), index.jobs_of(baseline_group), index.objective.mode)


def compare_jobs(jobs: Sequence[JobEntry], baseline_jobs: Sequence[JobEntry], mode: str) -> Comparison:
    """Compare the jobs of a group with the jobs of the baseline group.

    Args:
        jobs: jobs of the group.
        baseline_jobs: jobs of the baseline group.
        mode: "min" if a smaller objective is better, "max" if a larger objective is better.
    """
    base = _by_seed(baseline_jobs)
    differences = [value - base[seed] for seed, value in _by_seed(jobs).items() if seed in base]
    mean, deviation = mean_and_deviation(differences)
    sign = -1.0 if mode == "max" else 1.0
    return Comparison(
        num_pairs=len(differences),
        num_better=sum(sign * difference < 0 for difference in differences),
        mean=mean,
        deviation=deviation,
        p_value=sign_flip_p_value(differences) if len(differences) >= MIN_TEST_PAIRS else None,
    )


def sign_flip_p_value(differences: Sequence[float]) -> float:
    """Return the two-sided p-value of the sign-flip test of paired differences.

    If the groups do not differ, each difference is as likely as its negative (null hypothesis). The p-value is the
    fraction of all 2**n sign patterns with a sum at least as far from 0 as the observed sum (R. A. Fisher, The Design
    of Experiments, 1935, section 21). For more than 16 differences, the distribution of the sums is approximated by a
    normal distribution with the same variance.
    """
    observed = abs(math.fsum(differences))
    if len(differences) > _MAX_EXACT_PAIRS:
        scale = math.hypot(*differences)
        return math.erfc(observed / scale / math.sqrt(2.0)) if scale else 1.0
    sums = [0.0]
    for number, difference in enumerate(differences):
        # The first sign is fixed, because the opposite pattern has the opposite sum.
        sums = [total + difference for total in sums] + ([total - difference for total in sums] if number else [])
    least = observed - _TOLERANCE * math.fsum(map(abs, differences))
    return sum(abs(total) >= least for total in sums) / len(sums)


def baseline_of(index: SweepIndex) -> int | None:
    """Return the number of the group that other groups are compared with.

    This is the group that ``sweep.baseline`` describes. If several groups match, the group with the values of the
    configuration is preferred. Without ``sweep.baseline``, this is the group with the values of the configuration.

    Returns:
        The number of the group. If no matching group has the values of the configuration, the first matching group.
        None if the sweep has no groups, or if no group matches ``sweep.baseline``.
    """
    groups: Sequence[Group] = index.groups
    given = index.settings.get("baseline")
    if given:
        wanted = dict(_wanted(given, {factor.key for factor in index.factors}))
        groups = [group for group in groups if _has_values(group.values, wanted)]
    same = [group for group in groups if _has_values(index.own_values, group.values)]
    return next((group.number for group in (*same, *groups)), None)


def _by_seed(jobs: Sequence[JobEntry]) -> dict[int, float]:
    return {job.seed: job.objective for job in jobs if has_result(job) and job.objective is not None}


def _wanted(given: Any, keys: set[str], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the keys and values of ``sweep.baseline``: a list of overrides, or a mapping that may be nested."""
    if isinstance(given, Mapping):
        for name, value in given.items():
            key = f"{path}.{name}" if path else str(name)
            if key not in keys and isinstance(value, Mapping):
                yield from _wanted(value, keys, key)
            else:
                yield key, value
        return
    for word in [given] if isinstance(given, str) else given:
        key, _, text = str(word).partition("=")
        yield key.lstrip("+"), _Typed(text)


@dataclass(frozen=True, slots=True)
class _Typed:
    """The value of an override as it was typed."""

    text: str

    def is_value(self, value: Any) -> bool:
        """Return whether ``value`` is the value of the override."""
        if isinstance(value, str):
            return self.text in (value, f"'{value}'", f'"{value}"')
        if isinstance(value, int | float) and not isinstance(value, bool):
            try:
                return float(self.text.replace("_", "")) == value
            except ValueError:
                return False
        try:
            return _is_same(json.loads(self.text.replace("'", '"').lower()), _lower(value))
        except ValueError:
            return False


def _lower(value: Any) -> Any:
    return json.loads(json.dumps(value).lower())


def _has_values(values: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Return whether ``values`` contains all wanted values. Further values are ignored."""
    return all(
        key in values and (value.is_value(values[key]) if isinstance(value, _Typed) else _is_same(values[key], value))
        for key, value in wanted.items()
    )


def _is_same(left: Any, right: Any) -> bool:
    """Return whether two values are equal. True and 1 are different values, 1 and 1.0 are equal."""
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(_is_same, left, right))
    return bool(left == right) and isinstance(left, bool) == isinstance(right, bool)
