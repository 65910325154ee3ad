"""`Condition`, a word such as ``val/loss<0.1`` that chooses runs."""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from loopwright.errors import SettingError, did_you_mean
from loopwright.experiment.reading.entry import Entry
from loopwright.experiment.reading.keys import Keys
from loopwright.records import STATES as RUN_STATES
from loopwright.records import as_number

_WORD = re.compile(r"([^=<>!]+)(!=|<=|>=|==|=|<|>)(.*)", re.DOTALL)
_AGE = re.compile(r"(\d{1,6}(?:\.\d{1,6})?) ?(min|s|h|d)")
_UNITS = MappingProxyType({"s": "seconds", "min": "minutes", "h": "hours", "d": "days"})
_ORDERS: Mapping[str, Callable[[Any, Any], bool]] = MappingProxyType(
    {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
)
_TIMES = ("when", "started", "ended")
STATES = (*RUN_STATES, "pending", "skipped")


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition on the value of one key.

    Args:
        word: condition as typed.
        key: column, metric, or path of a setting.
        operator: "=", "!=", "<", "<=", ">" or ">=".
        given: text that the value is compared with.
        is_met: function that tells whether the value of a run meets the condition.
    """

    word: str
    key: str
    operator: str
    given: str
    is_met: Callable[[Any], bool]


def read_condition(word: str, now: datetime) -> Condition:
    """Parse a condition.

    Values are compared as numbers if both are numbers. A time is compared with a date, such as ``started>=2026-12-01``,
    or with an age, such as ``when<2h``. A missing value meets only ``!=`` and ``=null``.

    Args:
        word: condition as typed, such as ``state=failed``.
        now: current time, from which ages are computed.

    Raises:
        SettingError: if the word is not a condition, or if its value cannot be compared with ``<`` or ``>``.
    """
    found = _WORD.fullmatch(word)
    key, sign, given = ("", "", "") if found is None else (found[1].strip(), found[2], found[3].strip())
    if not key:
        raise SettingError(word, ": expected KEY=VALUE, such as state=failed or 'val/loss<0.1'.")
    if not given:
        raise SettingError(word, ": expected a value, such as null for a missing one.")
    sign = "=" if sign == "==" else sign
    if key in _TIMES:
        return Condition(word, key, sign, given, _compared_with_time(word, sign, given, now))
    if sign in _ORDERS:
        number = _number(given)
        if number is None:
            raise SettingError(word, f": expected a number after {sign}, not {given!r}.")
        return Condition(word, key, sign, given, lambda value: _is_ordered(_ORDERS[sign], value, number))
    if key == "state" and given not in STATES:
        raise SettingError(word, f": no such state. Available: {', '.join(STATES)}.{did_you_mean(given, STATES)}")
    is_wanted = sign == "="
    return Condition(word, key, sign, given, lambda value: _is_equal(value, given) == is_wanted)


def meeting(
    entries: Sequence[Entry], conditions: Sequence[Condition], keys: Keys, jobs_of: Callable[[Entry], Sequence[Entry]]
) -> list[Entry]:
    """Return the entries that meet all conditions.

    A sweep meets the conditions if one of its jobs does. A condition that the sweep meets itself, such as its ``id``,
    need not be met by the job.

    Args:
        entries: runs and sweeps.
        conditions: conditions to meet.
        keys: values of the runs.
        jobs_of: function that returns the jobs of a sweep.
    """
    tests = [(keys.find(condition.key), condition.is_met) for condition in conditions]

    def is_met(entry: Entry) -> bool:
        open_tests = [(value_of, test) for value_of, test in tests if not test(value_of(entry))]
        if not open_tests or entry.kind != "sweep":
            return not open_tests
        return any(all(test(value_of(job)) for value_of, test in open_tests) for job in jobs_of(entry))

    return [entry for entry in entries if is_met(entry)]


def _number(text: str) -> float | None:
    try:
        return float(text.replace(",", "").replace("_", ""))
    except ValueError:
        return None


def _is_ordered(order: Callable[[Any, Any], bool], value: Any, number: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and order(value, number)


def _is_equal(value: Any, given: str) -> bool:
    if value is None:
        return given.lower() in ("null", "none")
    if isinstance(value, bool):
        return given.lower() == str(value).lower()
    if isinstance(value, int | float):
        number = _number(given)
        number = as_number(given) if number is None else number
        return number is not None and (value == number or (math.isnan(value) and math.isnan(number)))
    if isinstance(value, list):
        return json.dumps(value, separators=(",", ":")).replace('"', "") == given.replace(" ", "").replace('"', "")
    return str(value) == given


def _compared_with_time(word: str, sign: str, given: str, now: datetime) -> Callable[[Any], bool]:
    """Return the test of a time. An age is compared with the time since then, so ``when<2h`` is after ``now - 2h``."""
    age = _AGE.fullmatch(given)
    if age is not None and sign in _ORDERS:
        limit = timedelta(**{_UNITS[age[2]]: float(age[1])})
        return lambda value: isinstance(value, datetime) and _ORDERS[sign](now - value, limit)
    try:
        time = datetime.fromisoformat(given).astimezone()
    except (ValueError, OverflowError):
        expected = "a date such as 2026-12-01, or after < or > an age such as 30min, 2h or 7d"
        raise SettingError(word, f": expected {expected}.") from None
    if sign in _ORDERS:
        return lambda value: isinstance(value, datetime) and _ORDERS[sign](value, time)
    if len(given) <= len("2026-12-01"):  # a whole day
        return lambda value: (isinstance(value, datetime) and value.astimezone().date() == time.date()) == (sign == "=")
    return lambda value: (value == time) == (sign == "=")
