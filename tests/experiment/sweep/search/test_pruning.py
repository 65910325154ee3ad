"""The rules that stop jobs early, on curves made by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopwright.errors import SettingError
from loopwright.experiment.sweep.search.pruning import Pruner, make_pruner

NAMES = ("median", "percentile", "hyperband")


def pruner_of(name: str, mode: str = "min") -> Pruner:
    pruner = make_pruner(name, mode)
    assert pruner is not None
    return pruner


def curve(*values: float) -> dict[int, float]:
    """Return the objective at the steps 10, 20, 30, …"""
    return {10 * (index + 1): value for index, value in enumerate(values)}


def flat(*values: float, num_validations: int = 2) -> list[dict[int, float]]:
    return [curve(*[value] * num_validations) for value in values]


@pytest.mark.parametrize(
    "name, value, is_pruned",
    [
        ("median", 2.5, False),  # 2 of 5 are better
        ("median", 3.0, False),  # equal to the median
        ("median", 3.5, True),  # 3 of 5 are better
        ("percentile", 3.5, False),
        ("percentile", 4.5, True),  # 4 of 5 are better
    ],
)
def test_a_job_is_stopped_if_more_than_a_fraction_of_the_others_is_better(
    name: str, value: float, is_pruned: bool
) -> None:
    others = flat(1, 2, 3, 4, 5)
    assert pruner_of(name).should_prune(curve(9, value), others) is is_pruned
    negative = [{step: -each for step, each in other.items()} for other in others]
    assert pruner_of(name, "max").should_prune(curve(-9, -value), negative) is is_pruned


@pytest.mark.parametrize("name", ["median", "percentile"])
def test_no_job_is_stopped_while_fewer_than_4_others_have_a_value_by_then(name: str) -> None:
    late = {30: 1.0}
    assert not pruner_of(name).should_prune(curve(9, 9), [*flat(1, 1, 1), late, {}])
    assert pruner_of(name).should_prune(curve(9, 9), [*flat(1, 1, 1), {5: 1.0}])


def test_the_best_values_up_to_the_same_step_are_compared() -> None:
    improving = [curve(5, 4, 1)] * 4
    assert not pruner_of("median").should_prune(curve(6, 3), improving)
    assert not pruner_of("median").should_prune(curve(3, 6), improving)  # the last value is not the best value
    assert pruner_of("median").should_prune(curve(3, 6, 6), improving)
    overfitting = [curve(1, 9, 9)] * 4
    assert pruner_of("median").should_prune(curve(2, 2), overfitting)


@pytest.mark.parametrize("name", NAMES)
def test_values_that_are_not_finite_are_worse_than_all_others(name: str) -> None:
    for mode in ("min", "max"):
        for bad in (math.nan, math.inf, -math.inf):
            assert pruner_of(name, mode).should_prune(curve(bad, bad), flat(1, 2, 3, 4))
            assert not pruner_of(name, mode).should_prune(curve(1, 1), flat(bad, bad, bad, bad))
            assert not pruner_of(name, mode).should_prune(curve(bad, bad), flat(bad, bad, bad, bad))


@pytest.mark.parametrize("name", NAMES)
def test_a_job_without_a_value_is_not_stopped(name: str) -> None:
    assert not pruner_of(name).should_prune({}, flat(1, 2, 3, 4))


@pytest.mark.parametrize(
    "others, value, is_pruned",
    [
        ([1], 9, False),  # fewer than 2 others
        ([1, 2], 0.5, False),  # the best of 3
        ([1, 2], 1.5, True),
        ([1, 2, 3], 1.5, False),  # the second of 4
        ([1, 2, 3, 4, 5], 1.5, False),  # the second of 6
        ([1, 2, 3, 4, 5], 2.5, True),
        ([1, 1, 1, 1, 1], 1, False),  # ties
    ],
)
def test_hyperband_keeps_the_best_third_of_the_jobs_at_a_rung(
    others: Sequence[float], value: float, is_pruned: bool
) -> None:
    assert pruner_of("hyperband").should_prune(curve(value), flat(*others)) is is_pruned


def test_hyperband_compares_at_the_newest_rung_and_only_with_jobs_that_have_reached_it() -> None:
    hyperband = pruner_of("hyperband")
    others = [curve(5, 5, 1), curve(5, 5, 1), curve(1), curve(1)]
    assert hyperband.should_prune(curve(2), others)
    others = [curve(5, 5, 1), curve(5, 5, 1), curve(5), curve(5)]
    assert not hyperband.should_prune(curve(2), others)
    assert not hyperband.should_prune(curve(2, 9), others)  # the newest rung is the first validation
    assert hyperband.should_prune(curve(2, 9, 2), others)
    assert hyperband.should_prune(curve(2, 9, 2, 0), others)  # the third validation was not asked about
    assert not hyperband.should_prune(curve(2, 9, 2), others[1:])  # 1 other job has reached the third validation


CURVES = st.dictionaries(st.integers(1, 6), st.integers(0, 5).map(float), max_size=5)


@given(name=st.sampled_from(NAMES), job=CURVES, others=st.lists(CURVES, max_size=8), scale=st.floats(0.5, 4))
def test_the_scale_of_the_objective_and_the_order_of_jobs_have_no_influence(
    name: str, job: Mapping[int, float], others: list[dict[int, float]], scale: float
) -> None:
    expected = pruner_of(name).should_prune(job, others)
    moved = [{step: scale * value - 3 for step, value in each.items()} for each in (job, *others[::-1])]
    assert pruner_of(name).should_prune(moved[0], moved[1:]) is expected
    mirrored = [{step: -value for step, value in each.items()} for each in (job, *others)]
    assert pruner_of(name, "max").should_prune(mirrored[0], mirrored[1:]) is expected


@given(name=st.sampled_from(NAMES), others=st.lists(CURVES, max_size=8))
def test_the_best_job_is_never_stopped(name: str, others: list[dict[int, float]]) -> None:
    assert not pruner_of(name).should_prune(curve(0, 0, 0), others)


def test_pruners_by_name() -> None:
    assert make_pruner("none", "min") is None
    with pytest.raises(SettingError) as caught:
        make_pruner("medain", "min")
    expected = "expected none, median, percentile or hyperband. Did you mean median?"
    assert str(caught.value) == f"sweep.pruner='medain': {expected}"
