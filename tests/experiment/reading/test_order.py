"""`in_order` sorts runs: times from the newest, metrics from the best, and runs without a value last."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopwright.errors import SettingError
from loopwright.experiment.reading.entry import Entry
from loopwright.experiment.reading.keys import Keys
from loopwright.experiment.reading.order import in_order

START = datetime(2026, 1, 1, tzinfo=UTC)


def entry(number: int, loss: float | None = None, mode: str = "min") -> Entry:
    return Entry(
        kind="run",
        directory=Path(str(number)),
        id=f"{number:06}",
        name="digits",
        state="completed",
        started=START + timedelta(hours=number),
        objective=loss,
        objective_mode=mode,
        metrics={} if loss is None else {"val/loss": loss, "val/accuracy": loss},
        num_steps=number % 3 or None,
    )


def numbers(entries: list[Entry], sort: str) -> list[int]:
    return [int(each.id) for each in in_order(entries, sort, Keys(entries))]


@given(losses=st.lists(st.none() | st.floats(), max_size=8), sort=st.sampled_from(["val/loss", "-val/loss", "started"]))
def test_sorting_is_a_permutation_that_does_not_depend_on_the_order_before(
    losses: list[float | None], sort: str
) -> None:
    entries = [entry(number, loss) for number, loss in enumerate(losses)]
    if sort != "started" and entries and all(loss is None for loss in losses):
        return
    found = numbers(entries, sort)
    assert sorted(found) == list(range(len(entries))) and found == numbers(entries[::-1], sort)


def test_runs_without_a_value_are_last_in_both_directions() -> None:
    entries = [entry(0, 0.5), entry(1, math.nan), entry(2, 0.25), entry(3, None), entry(4, 0.5)]
    assert numbers(entries, "val/loss") == [2, 4, 0, 3, 1]
    assert numbers(entries, "-val/loss") == [4, 0, 2, 3, 1]


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("started", [2, 1, 0]),
        ("when", [2, 1, 0]),
        ("-when", [0, 1, 2]),
        ("id", [0, 1, 2]),
        ("val/accuracy", [0, 2, 1]),
        ("objective", [1, 2, 0]),
        ("num_steps", [1, 2, 0]),
    ],
)
def test_the_first_value_depends_on_the_kind_of_the_key(sort: str, expected: list[int]) -> None:
    assert numbers([entry(0, 0.9), entry(1, 0.1), entry(2, 0.5)], sort) == expected


def test_an_objective_to_be_maximized_is_sorted_from_the_largest() -> None:
    assert numbers([entry(0, 0.5, "max"), entry(1, 0.9, "max")], "objective") == [1, 0]


def test_an_unknown_key_is_refused_with_the_nearest() -> None:
    entries = [entry(0, 0.5)]
    with pytest.raises(SettingError, match=r"^sort=val/los: no run has a value .* Did you mean val/loss\?$"):
        in_order(entries, "val/los", Keys(entries))
