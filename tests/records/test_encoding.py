"""``data.json``: values that JSON cannot represent are refused, and so are files that no run has written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

import special
from loopwright.data import Splits
from loopwright.errors import CheckpointError, SettingError
from loopwright.records import DATA_FILE, encoding_text, read_encoding


def nested(depth: int) -> dict[str, Any]:
    return {} if depth == 1 else {"a": nested(depth - 1)}


@pytest.mark.parametrize(
    "encoding",
    [
        {},
        {"columns": [{"name": "x", "mean": 0.1, "deviation": 5e-324, "is_used": True, "unit": None}]},
        {"name": "Zürich \ud800 \0", "mean": -0.0, "most": 2**63 - 1},
        nested(50),
    ],
)
def test_what_is_written_reads_back_equal(encoding: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / DATA_FILE).write_text(encoding_text(encoding))
    assert repr(read_encoding(tmp_path)) == repr(encoding)


def test_tuples_and_other_mappings_are_written_as_lists_and_mappings(tmp_path: Path) -> None:
    (tmp_path / DATA_FILE).write_text(encoding_text(MappingProxyType({"classes": ("a", "b")})))
    assert read_encoding(tmp_path) == {"classes": ["a", "b"]}


def test_a_run_without_the_file_has_recorded_no_encoding(tmp_path: Path) -> None:
    assert read_encoding(tmp_path) is None


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ([1], "encoding=[1]: expected a mapping of names to JSON values, or None."),
        ({"classes": {1: "a"}}, "encoding.classes=1: expected strings as names; write '1'."),
        ({"target": {"mean": math.nan}}, "encoding.target.mean=nan: expected a finite number."),
        ({"c": [0, 1j]}, "encoding.c[1]=1j: expected text, a finite number, true, false, null, a list or a mapping."),
        ({"n": 2**63}, "encoding.n=9223372036854775808: expected a whole number of at most 64 bits."),
        (nested(51), f"encoding{'.a' * 50}: expected at most 50 levels of lists and mappings."),
        (
            {"n": "x" * 2**26},
            "encoding: has 67,108,878 bytes as JSON; expected at most 67,108,864, the limit of data.j",
        ),
    ],
)
def test_splits_refuse_values_that_cannot_be_recorded(encoding: Mapping[str, Any], message: str) -> None:
    with pytest.raises(SettingError) as caught:
        Splits(train=[], encoding=encoding)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[1]", "the file contains no mapping"),
        ('{"a": NaN}', "found NaN, which is not a finite number"),
        ('{"a": [1, 1e999]}', "a[1]=inf: expected a finite number."),
        ('{"a": 1', "Expecting ',' delimiter: line 1 column 8 (char 7)"),
        ('{"a": ' + "[" * 60 + "]" * 60 + "}", ": expected at most 50 levels of lists and mappings."),
        ('{"a": ' + "[" * 200_000, "maximum recursion depth exceeded"),
    ],
)
def test_a_file_that_no_run_has_written_is_refused(content: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / DATA_FILE).write_text(content)
    with pytest.raises(CheckpointError) as caught:
        read_encoding(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}/data.json: expected the JSON mapping that a run recorded; ")
    assert problem in str(caught.value)


@pytest.mark.parametrize("kind", special.KINDS)
def test_a_file_that_is_not_regular_is_refused(kind: str, tmp_path: Path) -> None:
    special.make(tmp_path / DATA_FILE, kind)
    with pytest.raises(CheckpointError, match=r"data\.json: cannot be read: "):
        read_encoding(tmp_path)
