"""Differences between a recorded encoding and another encoding."""

from __future__ import annotations

from typing import Any

import pytest

from loopwright.experiment.jobs.recorded_encoding import encoding_differences


def number(name: str, mean: float, deviation: float = 2.0) -> dict[str, Any]:
    return {"name": name, "kind": "number", "mean": mean, "deviation": deviation}


@pytest.mark.parametrize(
    ("recorded", "now", "lines"),
    [
        ({"columns": [number("a", 1.0)]}, {"columns": [number("a", 1.5)]}, ["columns.a.mean: 1 recorded, 1.5 now"]),
        ({"columns": [number("a", 0.0)]}, {"columns": [number("a", 1e-16)]}, []),
        ({"columns": [number("a", 0.0, 1e-16)]}, {"columns": [number("a", 1e-16, 1e-16)]},
         ["columns.a.mean: 0 recorded, 1e-16 now"]),
        ({"columns": [number("a", 1.0), number("b", 1.0)]}, {"columns": [number("b", 1.0), number("a", 1.0)]},
         ["columns: ['a', 'b'] recorded, ['b', 'a'] now"]),
        ({"columns": [number("a", 1.0)]}, {"columns": [{"name": "a", "kind": "ignore"}]},
         ["columns.a.mean: only recorded", "columns.a.deviation: only recorded",
          "columns.a.kind: 'number' recorded, 'ignore' now"]),
        ({"a": 1, "target": {"classes": ["x", "y"]}}, {"a": True, "target": {"classes": ["y"]}},
         ["target.classes: ['x', 'y'] recorded, ['y'] now", "a: 1 recorded, True now"]),
        ({"classes": [*"abcdefghijkl"]}, {"classes": [*"bcdefghijklm"]},
         ["classes: only recorded ['a'], only now ['m']"]),
        ({"classes": [*"abcdefghijkl"]}, {"classes": [*"lbcdefghijka"]}, ["classes: in another order"]),
        ({}, {"a": None}, ["a: not recorded"]),
        ({"shape": [3, 8]}, {"shape": [3, 9]}, ["shape: ['3', '8'] recorded, ['3', '9'] now"]),
        ({"classes": ["1"]}, {"classes": [1]}, ["classes.1: '1' recorded, 1 now"]),
    ],
)  # fmt: skip
def test_each_difference_is_named(recorded: dict[str, Any], now: dict[str, Any], lines: list[str]) -> None:
    assert encoding_differences(recorded, now) == lines
    assert encoding_differences(recorded, recorded) == encoding_differences(now, now) == []
