"""JSON, CSV and Markdown have the same fields in the same order, and keep every value."""

from __future__ import annotations

import csv
import io
import json
import math
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from loopwright.experiment.console.list_files import formatted
from loopwright.records import as_number

FIELDS = ("one", "two")
TEXTS = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=8)
VALUES = st.none() | st.floats() | st.integers(-(10**9), 10**9) | TEXTS
ROWS = st.lists(st.fixed_dictionaries(dict.fromkeys(FIELDS, VALUES)), max_size=4)


@given(rows=ROWS)
def test_json_and_csv_keep_all_values(rows: list[dict[str, Any]]) -> None:
    text = formatted("json", FIELDS, rows)
    for row, found in zip(rows, json.loads(text, parse_constant=lambda name: 1 / 0), strict=True):
        assert list(found) == list(FIELDS)
        for name in FIELDS:
            if isinstance(row[name], float) and not math.isfinite(row[name]):
                number = as_number(found[name])
                assert number is not None and repr(number) == repr(row[name])
            else:
                assert found[name] == row[name]
    first, *others = csv.reader(io.StringIO(formatted("csv", FIELDS, rows)))
    assert tuple(first) == FIELDS and len(others) == len(rows)
    for row, cells in zip(rows, others, strict=True):
        for name, cell in zip(FIELDS, cells, strict=True):
            value = row[name]
            if isinstance(value, float):
                assert repr(float(cell.replace("Infinity", "inf"))) == repr(value)
            else:
                assert cell == ("" if value is None else str(value))


@given(rows=ROWS)
def test_markdown_has_a_line_for_each_row_and_no_open_bar(rows: list[dict[str, Any]]) -> None:
    lines = formatted("md", FIELDS, rows).splitlines()
    assert len(lines) == 2 + len(rows)
    for line in lines:
        unescaped = line.replace("\\\\", "").replace("\\|", "")
        assert unescaped.count("|") == 3


def test_an_empty_table() -> None:
    assert formatted("json", FIELDS, []) == "[]"
    assert formatted("csv", FIELDS, []) == "one,two"
    assert formatted("md", FIELDS, []) == "| one | two |\n| --- | --- |"


def test_times_lists_and_mappings() -> None:
    row = {"one": datetime(2026, 12, 1, tzinfo=UTC), "two": {"lr": [0.1, math.nan], "on": [True]}}
    assert json.loads(formatted("json", FIELDS, [row])) == [
        {"one": "2026-12-01T00:00:00+00:00", "two": {"lr": [0.1, "NaN"], "on": [True]}}
    ]
    cells = list(csv.reader(io.StringIO(formatted("csv", FIELDS, [row]))))[1]
    assert cells[0] == "2026-12-01T00:00:00+00:00" and json.loads(cells[1]) == {"lr": [0.1, "NaN"], "on": [True]}
