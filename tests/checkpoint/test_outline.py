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
    assert outline_fault(outline(tree), stored) is None


@given(TREES)
def test_any_removed_value_is_reported(tree: Any) -> None:
    for way in leaves(tree):
        if way:
            assert outline_fault(outline(without(tree, way)), outline(tree)) is not None
            assert outline_fault(outline(tree), outline(without(tree, way))) is not None


@given(TREES, TREES)
def test_a_tree_matches_an_outline_only_if_its_own_outline_is_equal(a: Any, b: Any) -> None:
    assert (outline_fault(outline(a), outline(b)) is None) == (outline(a) == outline(b))


def test_a_fault_contains_the_path() -> None:
    tree = {"a": {"b": [1, {"c": 2}]}, "d": [1, 2, 3]}
    assert outline(tree) == {"a": {"b": [None, {"c": None}]}, "d": 3}
    for changed, fault in (
        ({"a": {"b": [1, {}]}, "d": [1, 2, 3]}, ".a.b[1].c: expected a scalar, found nothing"),
        ({"a": {"b": [1, {"c": 2, "e": 0}]}, "d": [1, 2, 3]}, ".a.b[1].e: expected nothing, found a scalar"),
        ({"a": {"b": [1, {"c": 2}]}, "d": [1, 2]}, ".d: expected a list of 3 scalars, found a list of 2 scalars"),
        ({"a": {"b": [1, {"c": [2]}]}, "d": [1, 2, 3]}, ".a.b[1].c: expected a scalar, found a list of 1 scalars"),
        ({"a": {"b": [1, 2]}, "d": [1, 2, 3]}, ".a.b: expected a list of 2 values, found a list of 2 scalars"),
        ({"a": {"b": [1, {"c": 2}]}, "d": [1, [], 3]}, ".d: expected a list of 3 scalars, found a list of 3 values"),
    ):
        assert outline_fault(outline(changed), outline(tree)) == fault


def test_a_huge_length_in_an_outline_is_reported() -> None:
    assert outline_fault(1, 2**60) == ": expected a list of 1152921504606846976 scalars, found a list of 1 scalars"
