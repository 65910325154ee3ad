"""`RandomSearch`: laws of its proposals; spaces that are exhausted, first proposals, and refused spaces."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopwright.errors import SettingError
from loopwright.experiment.sweep.index import Factor
from loopwright.experiment.sweep.search.proposals import RandomSearch, Trial, check_space, is_in_space
from loopwright.experiment.sweep.search.tpe import TpeSearch

COLOURS = Factor(key="colour", values=("red", "green", None, [1, 2]))
RATE = Factor(key="optimizer.lr", low=1e-4, high=1e-1, is_log=True)
WIDTH = Factor(key="width", low=1, high=3, is_int=True)
DEPTH = Factor(key="depth", low=1, high=64, is_log=True, is_int=True)


def trials_of(proposals: Sequence[dict[str, Any]], state: str = "running") -> list[Trial]:
    return [
        Trial(number=number, values=values, state=state, value=None, intermediate={})
        for number, values in enumerate(proposals)
    ]


@st.composite
def factors(draw: st.DrawFn) -> Factor:
    kind = draw(st.sampled_from(["values", "float", "int"]))
    is_log = draw(st.booleans())
    if kind == "values":
        return Factor(key="x", values=tuple(draw(st.lists(st.integers() | st.text() | st.floats(0, 1), min_size=1))))
    if kind == "int":
        low = draw(st.integers(1 if is_log else -(10**9), 10**9))
        return Factor(key="x", low=low, high=low + draw(st.integers(1, 10**9)), is_log=is_log, is_int=True)
    limit = st.floats(1e-300 if is_log else -1e308, 1e308)
    low_value, high_value = sorted([draw(limit), draw(limit)])
    return Factor(key="x", low=low_value, high=high_value, is_log=is_log)


@given(factor=factors(), seed=st.integers(0, 10))
def test_values_are_in_the_space_and_json_returns_them_unchanged(factor: Factor, seed: int) -> None:
    for values in RandomSearch([factor], seed, 5).propose([], 5):
        assert is_in_space([factor], values)
        assert json.loads(json.dumps(values)) == values
        if factor.values is None:
            assert type(values["x"]) is (int if factor.is_int else float)
            assert factor.low is not None and factor.high is not None and factor.low <= values["x"] <= factor.high


@given(
    seed=st.integers(0, 100),
    cut=st.integers(0, 8),
    longer=st.integers(8, 12),
    state=st.sampled_from(["done", "failed"]),
)
def test_the_first_proposals_depend_neither_on_their_number_nor_on_results(
    seed: int, cut: int, longer: int, state: str
) -> None:
    space = [COLOURS, RATE, WIDTH]
    whole = RandomSearch(space, seed, longer).propose([], longer)
    assert RandomSearch(space, seed, 8).propose([], 100) == whole[:8]
    begun = trials_of(whole[:cut], state)
    assert RandomSearch(space, seed, longer).propose(begun[::-1], 100) == whole[cut:]


@given(seed=st.integers(0, 100))
def test_each_combination_of_a_finite_space_is_proposed_once(seed: int) -> None:
    space = [Factor(key="colour", values=("red", "green", "red")), WIDTH]
    proposals = RandomSearch(space, seed, 100).propose([], 100)
    assert sorted((each["colour"], each["width"]) for each in proposals) == [
        (colour, width) for colour in ("green", "red") for width in (1, 2, 3)
    ]


def test_an_interval_that_contains_one_number_is_proposed_once() -> None:
    assert RandomSearch([Factor(key="x", low=0.1, high=0.1)], 0, 9).propose([], 9) == [{"x": 0.1}]


def test_all_whole_numbers_of_a_logarithmic_interval_occur() -> None:
    assert sorted(each["depth"] for each in RandomSearch([DEPTH], 0, 64).propose([], 64)) == list(range(1, 65))


def test_a_logarithmic_interval_has_as_many_small_values_as_large_values() -> None:
    values = [each["optimizer.lr"] for each in RandomSearch([RATE], 0, 300).propose([], 300)]
    counts = [sum(low <= value < 10 * low for value in values) for low in (1e-4, 1e-3, 1e-2)]
    assert min(counts) > 80


def test_the_values_of_the_configuration_are_proposed_first_and_only_once() -> None:
    first = {"width": 2}
    assert RandomSearch([WIDTH], 0, 100, first).propose([], 1) == [first]
    proposals = RandomSearch([WIDTH], 0, 100, first).propose([], 100)
    assert proposals[0] == first and sorted(each["width"] for each in proposals) == [1, 2, 3]


@pytest.mark.parametrize(
    "first",
    [{"width": 4}, {"width": 2.0}, {"width": True}, {"width": None}, {"width": "2"}, {}, {"width": 2, "depth": 1}],
    ids=str,
)
def test_a_configuration_outside_the_space_is_not_proposed(first: dict[str, Any]) -> None:
    assert not is_in_space([WIDTH], first)
    assert RandomSearch([WIDTH], 3, 4, first).propose([], 1) == RandomSearch([WIDTH], 3, 4).propose([], 1)


def test_groups_outside_the_space_do_not_exhaust_it() -> None:
    outside = trials_of([{"width": 7}, {"width": 8}, {"width": 9}])
    proposals = RandomSearch([WIDTH], 0, 100).propose(outside, 100)
    assert sorted(each["width"] for each in proposals) == [1, 2, 3]


def test_nothing_is_proposed_above_the_number_of_proposals() -> None:
    search = RandomSearch([RATE], 0, 3)
    proposals = search.propose([], 100)
    assert len(proposals) == 3
    assert search.propose(trials_of(proposals), 1) == []
    assert RandomSearch([RATE], 0, 1).propose(trials_of(proposals), 1) == []
    assert search.propose([], 0) == []


def test_a_grid_refuses_an_interval_and_names_the_searches() -> None:
    for search in ("auto", "grid"):
        check_space([COLOURS], search)
        with pytest.raises(SettingError) as caught:
            check_space([COLOURS, RATE], search)
        assert str(caught.value) == (
            "optimizer.lr=interval(0.0001,0.1): a grid needs a list of values, such as optimizer.lr=0.0001,0.1; "
            "to search the interval, use sweep.search=random or tpe."
        )
    for search in ("random", "tpe"):
        check_space([COLOURS, RATE, WIDTH, DEPTH], search)


def test_tpe_without_optuna_names_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(SettingError) as caught:
        TpeSearch([RATE], 0, 10, "min")
    expected = "needs optuna, which is not installed; pip install 'loopwright[optuna]'."
    assert str(caught.value) == f"sweep.search=tpe: {expected}"
