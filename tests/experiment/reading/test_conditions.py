"""Conditions on runs: laws of the operators, times, and refused words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopwright.errors import SettingError
from loopwright.experiment.reading.conditions import meeting, read_condition
from loopwright.experiment.reading.entry import Entry
from loopwright.experiment.reading.keys import Keys

NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False, width=32) | st.integers(-(10**9), 10**9)
VALUES = st.none() | st.booleans() | NUMBERS | st.text(max_size=5) | st.lists(st.integers(0, 9), max_size=2)


def is_met(word: str, value: Any) -> bool:
    return read_condition(word, NOW).is_met(value)


@given(value=VALUES, given=st.text("ab19-.,[]", min_size=1, max_size=4))
def test_unequal_is_the_opposite_of_equal(value: Any, given: str) -> None:
    assert is_met(f"key={given}", value) != is_met(f"key!={given}", value)


@given(value=NUMBERS, limit=NUMBERS)
def test_exactly_one_of_three_orders_holds(value: float, limit: float) -> None:
    assert [is_met(f"key{sign}{limit}", value) for sign in ("<", "=", ">")].count(True) == 1
    assert is_met(f"key<={limit}", value) != is_met(f"key>{limit}", value)
    assert is_met(f"key>={limit}", value) != is_met(f"key<{limit}", value)


@given(value=VALUES)
def test_every_value_equals_its_own_text(value: Any) -> None:
    text = "null" if value is None else str(value).strip()
    is_plain = text and not text.startswith("=")  # key==a is the operator == and the text a
    if is_plain and text == str(value if value is not None else "null"):
        assert is_met(f"key={text}", value)


@pytest.mark.parametrize(
    ("word", "value", "expected"),
    [
        ("key=NaN", float("nan"), True),
        ("key<1", float("nan"), False),
        ("key>1", "text", False),
        ("key<1", None, False),
        ("key!=3", None, True),
        ("key=null", None, True),
        ("key=true", True, True),
        ("key=1", True, False),
        ("key=[4,5]", [4, 5], True),
        ("key=[4, 5]", [4, 5], True),
        ("key=['a']".replace("'", '"'), ["a"], True),
        ("key==0.5", 0.5, True),
        ("key=1e-3", 0.001, True),
        ("key<=2,000", 2000, True),
        ("when<2h", NOW - timedelta(hours=1), True),
        ("when<2h", NOW - timedelta(hours=3), False),
        ("when>=1.5d", NOW - timedelta(days=2), True),
        ("started>=2026-11-30T23:59:59+00:00", NOW, True),
        ("started<2026-11-30T23:59:59+00:00", NOW, False),
        ("ended=2026-12-01T12:00:00+00:00", NOW, True),
        ("ended=2026-12-01T12:00:01+00:00", NOW, False),
        ("when<2h", None, False),
    ],
)
def test_values_of_each_kind(word: str, value: Any, expected: bool) -> None:
    assert is_met(word, value) is expected


def test_a_date_is_a_whole_day() -> None:
    local = NOW.astimezone()
    assert is_met(f"started={local.date().isoformat()}", NOW)
    assert not is_met(f"started!={local.date().isoformat()}", NOW)
    assert not is_met(f"started={local.date().isoformat()}", NOW - timedelta(days=2))


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("val", "val: expected KEY=VALUE, such as state=failed or 'val/loss<0.1'."),
        ("=3", "=3: expected KEY=VALUE"),
        ("key=", "key=: expected a value, such as null for a missing one."),
        ("key<x", "key<x: expected a number after <, not 'x'."),
        ("when<soon", "when<soon: expected a date such as 2026-12-01, or after < or > an age such as 30min, 2h or 7d."),
        ("started=2h", "started=2h: expected a date"),
        ("state=done", "state=done: no such state. Available: completed, stopped, "),
        ("state=faild", "state=faild: no such state."),
    ],
)
def test_other_words_are_refused(word: str, said: str) -> None:
    with pytest.raises(SettingError) as caught:
        read_condition(word, NOW)
    assert str(caught.value).startswith(said)


def test_the_conditions_of_a_sweep_can_be_met_by_one_of_its_jobs() -> None:
    def entry(kind: Any, number: str, **values: Any) -> Entry:
        return Entry(kind=kind, directory=Path(number), id=number, name="digits", state="completed", **values)

    sweep = entry("sweep", "abcdef", objective=0.5)
    jobs = [entry("job", f"abcdef/{number}", metrics={"lr": number}) for number in (1, 2)]
    run = entry("run", "000000", metrics={"lr": 3})
    keys = Keys([sweep, run, *jobs])

    def found(*words: str) -> list[str]:
        conditions = [read_condition(word, NOW) for word in words]
        jobs_of = {"abcdef": jobs}
        return [each.id for each in meeting([sweep, run], conditions, keys, lambda one: jobs_of.get(one.id, []))]

    assert found() == ["abcdef", "000000"]
    assert found("lr>=2") == ["abcdef", "000000"]
    assert found("lr>=2", "id=abcdef") == ["abcdef"]
    assert found("lr=1", "lr=2") == []  # no single job meets both
    assert found("lr=3") == ["000000"]
