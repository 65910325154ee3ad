from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from loopwright.checkpoint.outline import outline, outline_fault
from sealing import leaves, without

TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=15,
)


@given(TREES)
def test_a_tree_matches_its_outline_after_a_json_round_trip(tree: Any) -> None:
    stored = json.loads(json.dumps(outline(tree)))
    assert outline_fault(tree, stored) is None


@given(TREES)
def test_any_removed_value_is_reported(tree: Any) -> None:
    for way in leaves(tree):
        if way:
            assert outline_fault(without(tree, way), outline(tree)) is not None
            assert outline_fault(tree, outline(without(tree, way))) is not None


@given(TREES, TREES)
def test_a_tree_matches_an_outline_only_if_its_own_outline_is_equal(a: Any, b: Any) -> None:
    assert (outline_fault(a, outline(b)) is None) == (outline(a) == outline(b))


def test_a_fault_contains_the_path() -> None:
    tree = {"a": {"b": [1, {"c": 2}]}, "d": [1, 2, 3]}
    assert outline(tree) == {"a": {"b": [None, {"c": None}]}, "d": 3}
    for changed, fault in (
        ({"a": {"b": [1, {}]}, "d": [1, 2, 3]}, "a.b[1].c: missing"),
        ({"a": {"b": [1, {"c": 2, "e": 0}]}, "d": [1, 2, 3]}, "a.b[1].e: unexpected"),
        ({"a": {"b": [1, {"c": 2}]}, "d": [1, 2]}, "d: 2 items, but 3 were saved"),
        ({"a": {"b": [1, {"c": [2]}]}, "d": [1, 2, 3]}, "a.b[1].c: expected a scalar, found a list"),
        ({"a": {"b": [1, 2]}, "d": [1, 2, 3]}, "a.b[1]: expected an object, found a scalar"),
        ({"a": {"b": [1, {"c": 2}]}, "d": [1, [], 3]}, "d[1]: expected a scalar, found a list"),
    ):
        assert outline_fault(changed, outline(tree)) == fault


def test_deep_trees_and_huge_declared_lengths_are_handled() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert outline_fault(deep, deep) is None
    assert outline_fault([1], 2**60) == ": 1 items, but 1152921504606846976 were saved"
