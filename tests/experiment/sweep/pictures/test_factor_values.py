"""Values of factors as the pictures order, group and name them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopwright.experiment.sweep.index import Factor, Group
from loopwright.experiment.sweep.pictures.factor_values import (
    bins,
    groups_by_value,
    is_number,
    short_names,
    shortened,
    value_key,
    value_texts,
)


def groups(*values: Any) -> list[Group]:
    return [Group(number=at, values={"lr": value}, label="") for at, value in enumerate(values)]


@pytest.mark.parametrize(
    ("factor", "expected"),
    [
        (Factor(key="lr", values=(3, 1, 2)), [(3, [1]), (1, [0, 3]), (2, [2])]),
        (Factor(key="lr", values=(2,)), [(2, [2]), (1, [0, 3]), (3, [1])]),
        (Factor(key="lr", low=0, high=9), [(1, [0, 3]), (2, [2]), (3, [1])]),
    ],
    ids=["typed order", "values that were not typed are last", "an interval is sorted"],
)
def test_groups_by_value(factor: Factor, expected: list[tuple[Any, list[int]]]) -> None:
    found = groups_by_value(factor, groups(1, 3, 2, 1))
    assert [(value, [group.number for group in members]) for value, members in found] == expected


def test_values_of_different_types_are_different() -> None:
    factor = Factor(key="lr", values=(True, 1, 1.0, "1", None, [1], {"b": 1, "a": 2}))
    assert factor.values is not None
    assert len(groups_by_value(factor, groups(*factor.values))) == 7
    assert value_key({"b": 1, "a": 2}) == value_key({"a": 2, "b": 1})


@given(st.lists(st.integers(), max_size=40), st.integers(1, 8))
def test_bins_tile_the_sequence_and_have_nearly_equal_lengths(items: list[int], num_bins: int) -> None:
    found = bins(items, num_bins)
    assert [item for part in found for item in part] == items
    assert len(found) == min(num_bins, len(items))
    assert len({len(part) for part in found} | {len(items) // max(1, len(found))}) <= 2


def test_numbers_are_finite_and_not_booleans() -> None:
    assert all(map(is_number, [0, -1.5, 1e150]))
    assert not any(map(is_number, [True, "1", None, math.nan, math.inf, 10**151, 10**400, [1]]))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.001, 3, True, None, "a", [1, 2]], ["0.001", "3", "true", "null", "a", "[1, 2]"]),
        (["a\n\x1b[31mb"], ["a \\x1b[31mb"]),
        ([f"/data/a/long/folder/{each}/train.parquet" for each in "xy"], ["…x/train.parquet", "…y/train.parquet"]),
        (["a" * 30, "b"], ["a" * 12 + "…" + "a" * 11, "b"]),
    ],
    ids=["plain", "one printable line", "a common beginning is left out", "the middle is left out"],
)
def test_value_texts(values: list[Any], expected: list[str]) -> None:
    assert list(value_texts(values).values()) == expected


@given(st.text(max_size=80), st.integers(2, 40))
def test_a_shortened_text_is_one_printable_line_within_its_limit(text: str, limit: int) -> None:
    found = shortened(text, limit)
    assert len(found) <= limit
    assert found.isprintable()


def test_names_are_headings_of_the_table_shortened() -> None:
    keys = ["model.dropout", "encoder.dropout", "optimizer.lr", "data." + "n" * 40]
    names = short_names([Factor(key=key) for key in keys])
    assert names == ["model.dropout", "encoder.dropout", "lr", "n" * 13 + "…" + "n" * 12]
