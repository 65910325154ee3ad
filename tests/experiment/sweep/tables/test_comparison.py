from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopwright.experiment.sweep.tables.comparison import baseline_of, compare, sign_flip_p_value
from swept import swept

KEY = "loop.grad_accum_steps"
VALUES = [{KEY: 1}, {KEY: 2}, {KEY: 4}]
differences = st.lists(st.integers(-50, 50).map(float), min_size=1, max_size=9)


def test_pairs_are_the_seeds_that_both_groups_have_done() -> None:
    index = swept(VALUES, [[0.5, 0.7, "failed", 0.9], [0.4, 0.8, 0.1, 0.5], ["failed", "pending", 0.2, math.nan]])
    found = compare(index, 1, 0)
    assert (found.num_pairs, found.num_better, found.p_value) == (3, 2, None)
    assert found.mean == pytest.approx(-0.4 / 3)
    assert found.deviation == pytest.approx(math.sqrt(((0.1 / 3) ** 2 + (0.7 / 3) ** 2 + (0.8 / 3) ** 2) / 2))
    none = compare(index, 2, 0)
    assert (none.num_pairs, none.num_better, none.mean, none.deviation) == (0, 0, None, None)


def test_mode_max_counts_larger_values_as_better() -> None:
    results = [[0.5, 0.5, 0.5], [0.6, 0.4, 0.5], [0.1, 0.1, 0.1]]
    assert [compare(swept(VALUES, results, mode=mode), 1, 0).num_better for mode in ("min", "max")] == [1, 1]
    assert [compare(swept(VALUES, results, mode=mode), 2, 0).num_better for mode in ("min", "max")] == [3, 0]


def test_the_test_needs_six_pairs() -> None:
    five, six = ([[1.0] * n, [0.5] * n] for n in (5, 6))
    assert compare(swept(VALUES[:2], five), 1, 0).p_value is None
    assert compare(swept(VALUES[:2], six), 1, 0).p_value == 2 / 2**6


@given(differences)
def test_the_p_value_is_the_fraction_of_all_sign_patterns(values: list[float]) -> None:
    patterns = list(itertools.product((1, -1), repeat=len(values)))
    sums = [abs(sum(sign * value for sign, value in zip(signs, values, strict=True))) for signs in patterns]
    assert sign_flip_p_value(values) == sum(each >= abs(sum(values)) for each in sums) / len(sums)


@given(differences, st.randoms(use_true_random=False))
def test_the_p_value_depends_neither_on_the_order_nor_on_the_direction(values: list[float], random: Any) -> None:
    other = [-value * 0.1 for value in values]
    random.shuffle(other)
    assert sign_flip_p_value(other) == sign_flip_p_value(values)


def test_rounding_does_not_change_which_sums_are_equal() -> None:
    assert sign_flip_p_value([0.1, 0.2, 0.3, -0.1, -0.2, -0.3]) == 1.0
    assert sign_flip_p_value([0.0] * 20) == sign_flip_p_value([0.0] * 6) == 1.0


def test_the_approximation_continues_the_exact_values() -> None:
    values = [1.0, -0.4, 0.8, 0.3, -0.6, 0.9, 0.2, -0.1, 0.7, 0.5, -0.3, 0.6, 0.1, 0.4, -0.2, 0.35]
    exact = sign_flip_p_value(values)
    assert sign_flip_p_value([*values, 1e-9]) == pytest.approx(exact, abs=0.01)


@pytest.mark.parametrize(
    "baseline, own, expected",
    [
        (None, None, 0),
        (None, {KEY: 2}, 1),
        (None, {KEY: 3}, 0),
        ([f"{KEY}=4"], {KEY: 2}, 2),
        ({KEY: 4}, None, 2),
        ({"loop": {"grad_accum_steps": 4}}, None, 2),
        ([f"{KEY}=3"], None, None),
        (["model=cnn"], None, None),
    ],
)
def test_the_baseline_is_the_chosen_group(baseline: Any, own: Mapping[str, Any] | None, expected: int | None) -> None:
    index = swept(VALUES, [[1.0]] * 3, settings={"baseline": baseline}, own_values=own)
    assert baseline_of(index) == expected


@pytest.mark.parametrize(
    "value, word",
    [(0.001, "1e-3"), (True, "true"), (None, "null"), ([1, 2], "[1,2]"), ("a b", "'a b'"), ("cnn", "cnn"), (1, "1")],
)
def test_the_value_of_an_override_is_compared_by_its_meaning(value: Any, word: str) -> None:
    index = swept([{"x.y": "other"}, {"x.y": value}], [[1.0]] * 2, settings={"baseline": [f"x.y={word}"]})
    assert baseline_of(index) == 1


def test_the_values_of_the_configuration_decide_between_several_matches() -> None:
    values = [{"a.b": a, "c": c} for a in (1, 2) for c in (1, 2)]
    settings = {"baseline": ["a.b=2"]}
    assert baseline_of(swept(values, [[1.0]] * 4, settings=settings)) == 2
    assert baseline_of(swept(values, [[1.0]] * 4, settings=settings, own_values={"a.b": 1, "c": 2})) == 2
    assert baseline_of(swept(values, [[1.0]] * 4, settings=settings, own_values={"a.b": 2, "c": 2})) == 3
    assert baseline_of(swept([{"a": 1}, {"a": True}], [[1.0]] * 2, own_values={"a": True})) == 1
    assert baseline_of(swept([{"a": 1}, {"a": None}], [[1.0]] * 2)) == 0
