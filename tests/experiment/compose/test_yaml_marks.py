"""Entries of YAML files with their lines and comments, and the choices in defaults lists."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from loopwright.experiment.compose.value_text import value_text
from loopwright.experiment.compose.yaml_marks import comment_of, read_choices, read_entries

TEXT = """\
# first
_target_: x.Y   # the class
lr: 0.1         # learning rate; "quoted" # twice
name: 'a # b'   # not in quotes
nothing:
limits: {low: 1, high: [2, 3]}  # of both
rows:
  - 1
  - two
inner:   # a section
  empty: {}
  1: one
"""


def test_entries_have_the_lines_of_their_keys_and_the_comments() -> None:
    entries = read_entries(TEXT)
    assert [(name, entry.line) for name, entry in entries.items()] == [
        ("_target_", 2), ("lr", 3), ("name", 4), ("nothing", 5), ("limits", 6), ("rows", 7), ("inner", 10),
    ]  # fmt: skip
    assert entries["lr"].comment == 'learning rate; "quoted" # twice'
    assert (entries["name"].text, entries["name"].comment) == ("'a # b'", "not in quotes")
    assert (entries["nothing"].text, entries["rows"].text) == ("null", "[1, two]")
    limits, inner = entries["limits"].entries, entries["inner"].entries
    assert limits is not None and (limits["high"].line, limits["high"].text) == (6, "[2, 3]")
    assert inner is not None and (inner["empty"].entries, inner["1"].text) == ({}, "one")


def test_a_merge_key_brings_the_entries_of_its_mapping() -> None:
    entries = read_entries("base: &base {a: 1, b: 2}\nmine:\n  <<: *base\n  b: 3\n")["mine"].entries
    assert entries is not None and (entries["a"].text, entries["b"].text, entries["b"].line) == ("1", "3", 4)


@pytest.mark.parametrize("text", ["", "# only a comment\n", "- a list\n", "word\n"])
def test_a_file_without_a_mapping_has_no_entries(text: str) -> None:
    assert read_entries(text) == {}


@pytest.mark.parametrize(
    ("line", "comment"),
    [("a: 1", ""), ("a: b#c", ""), ("a: 'it''s # in'  # out", "out"), ('a: "\\" # in" # out', "out"), ("# all", "all")],
)
def test_a_comment_begins_outside_quotes_and_after_a_space(line: str, comment: str) -> None:
    assert comment_of(line) == comment


def test_the_choices_of_a_defaults_list_have_their_lines() -> None:
    text = (
        "# c\ndefaults:\n  - loop: training\n  - _self_\n  - override /model: mlp   # d\n"
        "  - optional data: [a, b]\nmodel:\n  - other: x\n"
    )
    assert [tuple(each) for each in read_choices(text)] == [
        ("loop", "training", 3),
        ("model", "mlp", 5),
        ("data", "[a, b]", 6),
    ]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="ascii"), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3),
    max_leaves=6,
)


@given(VALUES)
@example("\x7f")
@example("a\x85'b")
def test_yaml_reads_a_formatted_value_as_the_same_value(value: object) -> None:
    assert yaml.safe_load(value_text(value)) == value
