"""`Search`, which proposes values for the groups of a sweep, and `RandomSearch`.

A search has no state of its own. Its proposals are computed from the settings of the search and from the trials so far,
so a sweep that was interrupted gets the same proposals as a sweep that was not.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Protocol

from loopwright.errors import SettingError
from loopwright.experiment.sweep.index import Factor


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What a search and a pruner use of one group.

    Attributes:
        number: index of the group, from 0.
        values: value of each factor by its key.
        state: "done", "failed" or "pruned". For all other groups "running", also if no job of the group has begun.
        value: mean of the objective over the seeds that are done; None if there is none.
        intermediate: objective of the job with the first seed, by ``global_step``.
    """

    number: int
    values: Mapping[str, Any]
    state: str
    value: float | None
    intermediate: Mapping[int, float]


class Search(Protocol):
    """Proposes the values of new groups."""

    def propose(self, trials: Sequence[Trial], count: int) -> list[dict[str, Any]]:
        """Return the values of new groups.

        Args:
            trials: all groups so far. Each group is one proposal.
            count: largest number of new groups.

        Returns:
            The values of each new group by key. The list has fewer than ``count`` entries if the number of proposals
            is reached, or if the space contains no further combination of values.
        """
        ...


@dataclass(frozen=True, slots=True)
class RandomSearch:
    """Draws the values of each group independently. Intervals are uniform, or uniform in the logarithm.

    Proposal k is drawn by a generator that is seeded with the seed of the search and k. If a finite space
    is searched and the proposal repeats the values of an earlier group, the same generator draws again.

    Args:
        factors: space of the search.
        seed: seed of the search.
        num_proposals: number of groups of the whole sweep.
        first: values of the first group, such as the values of the configuration. The first group is drawn instead if
            ``first`` is None or outside the space.
    """

    factors: Sequence[Factor]
    seed: int
    num_proposals: int
    first: Mapping[str, Any] | None = None

    def propose(self, trials: Sequence[Trial], count: int) -> list[dict[str, Any]]:
        """Return the values of new groups, as `Search` describes."""

        def draw(known: Sequence[Trial], seen: AbstractSet[str]) -> dict[str, Any]:
            return draw_unseen(self.factors, random.Random(f"{self.seed}:{len(known)}"), seen)

        return extend(trials, min(count, self.num_proposals - len(trials)), self.factors, self.first, draw)


def extend(
    trials: Sequence[Trial],
    count: int,
    factors: Sequence[Factor],
    first: Mapping[str, Any] | None,
    draw: Callable[[Sequence[Trial], AbstractSet[str]], dict[str, Any]],
) -> list[dict[str, Any]]:
    """Return up to ``count`` proposals. The list ends early if all combinations of values have been proposed.

    Args:
        trials: all groups so far.
        count: largest number of proposals.
        factors: space of the search.
        first: proposal 0; it is left out if it is None or outside the space.
        draw: function that computes one proposal. Its arguments are all groups before the proposal, in the order of
            their numbers, and the texts of the values that must not be repeated (`text_of_values`). Earlier proposals
            of this call count as running groups.
    """
    known = sorted(trials, key=lambda trial: trial.number)
    num_points, seen = num_points_of(factors), set[str]()
    if math.isfinite(num_points):  # a repetition of real numbers is not expected
        seen = {text_of_values(trial.values) for trial in known if is_in_space(factors, trial.values)}
    given = [dict(first)] if not known and first is not None and is_in_space(factors, first) else []
    proposals: list[dict[str, Any]] = []
    while len(proposals) < count and len(seen) < num_points:
        values = given.pop() if given else draw(known, seen)
        known.append(Trial(number=len(known), values=values, state="running", value=None, intermediate={}))
        if math.isfinite(num_points):
            seen.add(text_of_values(values))
        proposals.append(values)
    return proposals


def draw_unseen(factors: Sequence[Factor], rng: random.Random, seen: AbstractSet[str]) -> dict[str, Any]:
    """Draw values until their text (`text_of_values`) is not in ``seen``. The space must contain such values."""
    while True:
        values = {factor.key: _draw(factor, rng) for factor in factors}
        if text_of_values(values) not in seen:
            return values


def _draw(factor: Factor, rng: random.Random) -> Any:
    if factor.values is not None:
        return rng.choice(factor.values)
    low, high = bounds_of(factor)
    if factor.is_int and not factor.is_log:
        return rng.randint(int(low), int(high))
    if factor.is_log:
        # Half a unit on both sides gives the first and the last whole number the same share as the others.
        margin = 0.5 if factor.is_int else 0.0
        value = math.exp(rng.uniform(math.log(low - margin), math.log(high + margin)))
    else:
        share = rng.random()
        value = low * (1 - share) + high * share
    return rounded(factor, value)


def rounded(factor: Factor, value: float) -> Any:
    """Return a value of an interval with few digits, or the nearest whole number.

    An interval of numbers that are not whole has about ten thousand such values, or more.
    """
    low, high = bounds_of(factor)
    if factor.is_int:
        value = round(value)
    elif low < high:
        span = math.log(high) - math.log(low) if factor.is_log else min(high - low, 1e300)
        digits = max(0, math.ceil(4 - math.log10(span)))
        value = float(f"{value:.{max(digits, 4)}g}") if factor.is_log else round(value, digits)
    return min(max(value, low), high)


def bounds_of(factor: Factor) -> tuple[float, float]:
    """Return the bounds of an interval: ints if its values are whole numbers, otherwise floats."""
    assert factor.low is not None and factor.high is not None, "a factor without values has bounds"
    kind = int if factor.is_int else float
    return kind(factor.low), kind(factor.high)


def num_points_of(factors: Sequence[Factor]) -> float:
    """Return the number of combinations of values. It is infinite if a factor is an interval of real numbers."""
    return math.prod(_num_values(factor) for factor in factors)


def _num_values(factor: Factor) -> float:
    if factor.values is not None:
        return len({text_of_value(value) for value in factor.values})
    low, high = bounds_of(factor)
    if low == high:
        return 1
    return high - low + 1 if factor.is_int else math.inf


def is_in_space(factors: Sequence[Factor], values: Mapping[str, Any]) -> bool:
    """Return whether ``values`` has exactly the keys of the factors, and each value belongs to its factor."""
    return values.keys() == {factor.key for factor in factors} and all(
        _contains(factor, values[factor.key]) for factor in factors
    )


def _contains(factor: Factor, value: Any) -> bool:
    if factor.values is not None:
        return text_of_value(value) in {text_of_value(each) for each in factor.values}
    if isinstance(value, bool) or not isinstance(value, int if factor.is_int else int | float):
        return False
    low, high = bounds_of(factor)
    return low <= value <= high


def text_of_values(values: Mapping[str, Any]) -> str:
    """Return a text that two mappings have in common if they have equal keys and equal values."""
    return text_of_value(dict(values))


def text_of_value(value: Any) -> str:
    """Return the value of a factor as JSON. The texts of 1, 1.0 and True differ."""
    return json.dumps(value, sort_keys=True)


def check_space(factors: Sequence[Factor], search: str) -> None:
    """Check that ``search`` can use the factors. Only a grid needs a list of values for each factor.

    Args:
        factors: space of the sweep.
        search: setting ``sweep.search``: "auto", "grid", "random" or "tpe". "auto" means a grid.

    Raises:
        SettingError: if a factor of a grid is an interval.
    """
    if search not in ("auto", "grid"):
        return
    for factor in factors:
        if factor.values is None:
            low, high = bounds_of(factor)
            problem = f"=interval({low},{high}): a grid needs a list of values, such as {factor.key}={low},{high}"
            raise SettingError(factor.key, f"{problem}; to search the interval, use sweep.search=random or tpe.")
