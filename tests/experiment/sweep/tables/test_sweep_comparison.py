"""`compare_sweeps` matches groups by the values of their factors, also of factors that only one sweep varies."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given

from loopwright.experiment.sweep.index import Objective
from loopwright.experiment.sweep.tables.sweep_comparison import compare_sweeps, factor_keys
from swept import sweeps, swept


def test_groups_are_matched_by_value_and_sorted_by_the_first_sweep() -> None:
    first = swept(
        [{"optimizer.lr": 0.1}, {"optimizer.lr": 1}, {"optimizer.lr": 3}], [[3.0, 5.0], [1.0, 2.0], [0.5, 0.5]]
    )
    second = swept(
        [{"optimizer.lr": 1.0}, {"optimizer.lr": 0.10}, {"optimizer.lr": 9}], [[2.0, 4.0], [1.0, 1.0], [7.0]]
    )
    found = compare_sweeps([first, second], [{}, {}])
    assert [each.label for each in found] == ["lr=1", "lr=0.1", "lr=3", "lr=9"]
    numbers = [[None if group is None else group.number for group in each.groups] for each in found]
    assert numbers == [[1, 0], [0, 1], [2, None], [None, 2]]
    one = found[0].comparisons[1]
    assert one is not None and (one.mean, one.num_pairs, one.num_better) == (1.5, 2, 0)
    assert one.deviation == pytest.approx(math.sqrt(0.5))
    assert found[2].comparisons == found[3].comparisons == (None, None)


def test_a_factor_that_one_sweep_has_not_swept_has_its_fixed_value() -> None:
    first = swept([{"lr": 1, "model": "mlp"}, {"lr": 1, "model": "cnn"}], [[1.0], [2.0]])
    second = swept([{"lr": 1}, {"lr": 2}], [[3.0], [4.0]])
    assert factor_keys([first, second]) == ["lr", "model"]
    found = compare_sweeps([first, second], [{}, {"model": "cnn"}])
    assert [each.label for each in found] == ["lr=1 model=cnn", "lr=1 model=mlp", "lr=2 model=cnn"]
    assert [each.groups.count(None) for each in found] == [0, 1, 1]


@pytest.mark.parametrize(("one", "other"), [(1, True), (0, False), (1, "1"), (None, "null"), ([1], "[1]")])
def test_values_of_other_types_are_other_groups(one: Any, other: Any) -> None:
    found = compare_sweeps([swept([{"a": one}], [[1.0]]), swept([{"a": other}], [[1.0]])], [{}, {}])
    assert [each.groups.count(None) for each in found] == [1, 1]


def test_sweeps_with_other_objectives_have_no_difference() -> None:
    first = swept([{"a": 1}], [[1.0]])
    second = replace(first, objective=Objective(name="val/accuracy", mode="max"))
    (found,) = compare_sweeps([first, second], [{}, {}])
    assert found.comparisons == (None, None)


@given(first=sweeps(), second=sweeps())
def test_every_group_is_shown_once(first: Any, second: Any) -> None:
    found = compare_sweeps([first, second], [{}, {}])
    for place, index in enumerate((first, second)):
        shown = [each.groups[place] for each in found]
        assert sorted(group.number for group in shown if group is not None) == [group.number for group in index.groups]
    same = compare_sweeps([first, first], [{}, {}])
    assert all(each.groups[0] is each.groups[1] for each in same) and len(same) == len(first.groups)
    assert all(each.comparisons[1] is None or each.comparisons[1].mean in (None, 0.0) for each in same)
