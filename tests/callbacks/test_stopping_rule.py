"""Tests of `StoppingRule`."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopwright.callbacks.stopping_rule import Seen, StoppingRule

VALUES = st.lists(st.integers(-5, 5).map(float) | st.sampled_from([math.nan, math.inf, -math.inf]), max_size=12)


def rule(**settings: Any) -> StoppingRule:
    given = {"monitor": "val/loss", "mode": "min", "patience": 2, "min_delta": 0.0, "divergence_threshold": None}
    return StoppingRule(**(given | settings))


def seen_of(ours: StoppingRule, values: list[float]) -> Seen:
    seen = Seen()
    for step, value in enumerate(values, start=1):
        seen = ours.after(seen, value, step)
    return seen


def is_over(values: list[float], patience: int, min_delta: float, threshold: float | None) -> bool:
    """Decide from all values whether to stop, for ``mode="min"``."""
    if not values:
        return False
    if not math.isfinite(values[-1]) or (threshold is not None and values[-1] > threshold):
        return True
    best_index = 0
    for index, value in enumerate(values):
        if values[best_index] - value > min_delta:
            best_index = index
    return len(values) - 1 - best_index >= patience


@given(
    values=VALUES,
    patience=st.integers(1, 4),
    min_delta=st.sampled_from([0.0, 0.5, 2.0]),
    threshold=st.sampled_from([None, 3.0]),
)
def test_the_rule_agrees_with_a_decision_from_all_values(
    values: list[float], patience: int, min_delta: float, threshold: float | None
) -> None:
    ours = rule(patience=patience, min_delta=min_delta, divergence_threshold=threshold)
    is_finite_before = all(map(math.isfinite, values[:-1]))  # a run ends at the first value that is not finite
    if is_finite_before:
        assert (ours.reason(seen_of(ours, values)) is not None) == is_over(values, patience, min_delta, threshold)


@given(values=VALUES, patience=st.integers(1, 4), threshold=st.sampled_from([None, 3.0]))
def test_the_larger_patience_continues_a_run_if_any_patience_does(
    values: list[float], patience: int, threshold: float | None
) -> None:
    ours = rule(patience=patience, divergence_threshold=threshold)
    seen = seen_of(ours, values)
    larger = ours.larger_patience(seen)
    if larger is None:
        assert is_over(values, 1000, 0.0, threshold)
    else:
        assert larger > patience and rule(patience=larger, divergence_threshold=threshold).reason(seen) is None


@given(VALUES)
def test_mode_max_with_negated_values_agrees_with_mode_min(values: list[float]) -> None:
    minimum, maximum = (
        rule(mode=mode, min_delta=1.0, divergence_threshold=sign * 4.0) for mode, sign in (("min", 1), ("max", -1))
    )
    negated = [-value for value in values]
    assert (minimum.reason(seen_of(minimum, values)) is None) == (maximum.reason(seen_of(maximum, negated)) is None)


@given(VALUES, st.floats())
def test_a_second_value_at_the_same_step_is_ignored(values: list[float], again: float) -> None:
    ours = rule()
    seen = seen_of(ours, values)
    if values:
        assert ours.after(seen, again, len(values)) is seen


@pytest.mark.parametrize(
    ("settings", "values", "reason"),
    [
        (
            {},
            [1.0, 0.5, 0.75, 0.625],
            "val/loss is 0.625 after step 4; the best value, 0.5 after step 2, was not improved in 2 validations",
        ),
        (
            {"patience": 1, "min_delta": 0.25, "mode": "max"},
            [0.5, 0.625],
            "val/loss is 0.625 after step 2; the best value, 0.5 after step 1, was not improved by more than 0.25 in "
            "1 validation",
        ),
        (
            {"divergence_threshold": 3},
            [1.0, 4.5],
            "val/loss is 4.5 after step 2, worse than divergence_threshold=3",
        ),
        ({}, [math.nan], "val/loss is nan after step 1, which is not finite"),
    ],
)
def test_the_reason_contains_the_values_and_steps(settings: dict[str, Any], values: list[float], reason: str) -> None:
    ours = rule(**settings)
    assert ours.reason(seen_of(ours, values[:-1])) is None
    assert ours.reason(seen_of(ours, values)) == reason
