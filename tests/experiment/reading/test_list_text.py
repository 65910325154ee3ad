"""The table of runs: its layout at several widths, and the law that no value is ever cut."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from loopwright.experiment.reading.entry import Entry
from loopwright.experiment.reading.list_text import list_lines
from loopwright.experiment.reading.texts import changes_text, number_text, state_text

NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)


def entry(number: str, **values: Any) -> Entry:
    known: dict[str, Any] = {"kind": "run", "state": "completed", "name": "digits", "num_steps": 2000, **values}
    return Entry(directory=Path(number), id=number, **known)


RUNS = [
    entry("6b7ccb", started=NOW - timedelta(minutes=2), global_step=2000, objective=0.072834, best=0.0705),
    entry(
        "a1f0d2",
        started=NOW - timedelta(hours=1),
        state="interrupted",
        global_step=640,
        objective=0.1312,
        best=0.1312,
        changes={"model": ("mlp", "cnn"), "optimizer.lr": (0.003, 0.001)},
    ),
    entry(
        "7d1c4e",
        kind="sweep",
        started=NOW - timedelta(hours=3),
        num_jobs=6,
        num_done=5,
        global_step=2000,
        objective=0.0667,
        best=0.0655,
        swept="sweep of grad_accum_steps × 2 seeds",
    ),
    entry(
        "09e3aa",
        started=NOW - timedelta(hours=25),
        state="failed",
        global_step=120,
        objective=float("nan"),
        best=0.441,
        changes={"optimizer.lr": (0.003, 10), "init_from": (None, "outputs/digits/last")},
        origin="6b7ccb, step 2",
    ),
]
TABLE = """\
  id       when        state         steps   val/loss   best     not as configured                     from
  6b7ccb   2 min ago   completed     2,000   0.07283    0.0705   –                                     –
  a1f0d2   1 h ago     interrupted     640   0.1312     0.1312   model=cnn optimizer.lr=0.001          –
  7d1c4e   3 h ago     5 of 6 done   2,000   0.06670    0.0655   sweep of grad_accum_steps × 2 seeds   –
  09e3aa   yesterday   failed          120   NaN        0.4410   optimizer.lr=10                       6b7ccb, step 2
"""
AT_100 = """\
  id       when        state         steps   val/loss   not as configured           from
  6b7ccb   2 min ago   completed     2,000   0.07283    –                           –
  a1f0d2   1 h ago     interrupted     640   0.1312     model=cnn                   –
                                                        optimizer.lr=0.001
  7d1c4e   3 h ago     5 of 6 done   2,000   0.06670    sweep of grad_accum_steps   –
                                                        × 2 seeds
  09e3aa   yesterday   failed          120   NaN        optimizer.lr=10             6b7ccb, step 2
"""
AT_60 = """\
  id       when        state         steps   val/loss
  6b7ccb   2 min ago   completed     2,000   0.07283
      best 0.0705
  a1f0d2   1 h ago     interrupted     640   0.1312
      best 0.1312
      model=cnn optimizer.lr=0.001
  7d1c4e   3 h ago     5 of 6 done   2,000   0.06670
      best 0.0655
      sweep of grad_accum_steps × 2 seeds
  09e3aa   yesterday   failed          120   NaN
      best 0.4410   from 6b7ccb, step 2
      optimizer.lr=10
"""


@pytest.mark.parametrize(("width", "expected"), [(None, TABLE), (120, TABLE), (100, AT_100), (60, AT_60)])
def test_the_table_at_several_widths(width: int | None, expected: str) -> None:
    assert list_lines(RUNS, now=NOW, width=width, more={}) == expected.splitlines()


def test_the_names_of_several_experiments_have_a_column() -> None:
    lines = list_lines([RUNS[0], entry("111111", name="mnist")], now=NOW, width=120, more={})
    assert lines[0].split() == ["id", "name", "when", "state", "steps", "val/loss", "best"]
    assert "mnist" in lines[2]


def test_runs_with_several_objectives_name_the_objective() -> None:
    lines = list_lines([RUNS[0], entry("111111", objective=0.5, objective_name="val/f1")], now=NOW, width=120, more={})
    assert " objective " in lines[0] and "0.07283 val/loss" in lines[1] and "0.5 val/f1" in lines[2]


def test_further_columns_are_never_left_out() -> None:
    more = {"optimizer.lr": lambda each: each.changes.get("optimizer.lr", (None, None))[1]}
    for width in (40, 80, 120):
        text = "\n".join(list_lines(RUNS, now=NOW, width=width, more=more))
        assert "optimizer.lr" in text and re.search(r"\b0\.001\b", text)


TEXTS = st.text(st.characters(categories=["L", "N", "S", "P"]), min_size=1, max_size=12)
ENTRIES = st.builds(
    lambda number, state, loss, changes, name, origin, age: entry(
        f"{number:06x}",
        state=state,
        objective=loss,
        best=loss,
        changes={path: (None, value) for path, value in changes.items()},
        name=name,
        origin=origin,
        started=None if age is None else NOW - timedelta(seconds=age),
    ),
    st.integers(0, 0xFFFFFF),
    st.sampled_from(["completed", "lost", "unreadable"]),
    st.none() | st.floats(),
    st.dictionaries(TEXTS, st.integers() | TEXTS | st.floats(), max_size=9),
    TEXTS,
    st.none() | TEXTS,
    st.none() | st.integers(0, 10**7),
)


@given(entries=st.lists(ENTRIES, min_size=1, max_size=4), width=st.integers(20, 200))
def test_no_value_is_cut_and_lines_are_too_long_only_because_of_one_value(entries: list[Entry], width: int) -> None:
    lines = list_lines(entries, now=NOW, width=width, more={})
    text = "\n".join(lines)
    for each in entries:
        units = [each.id, state_text(each), *changes_text(each), *([each.origin] if each.origin else [])]
        if each.objective is not None:
            units.append(number_text(each.objective))
        assert all(unit in text for unit in units)
        if each.name != entries[0].name:
            assert each.name in text
    if width >= 80 and lines[0].split()[-1] in ("configured", "from"):  # a table, whose own columns always fit
        own_lines = [line for line in lines if not line.startswith("      ")]
        assert max(map(cell_len, own_lines)) <= width


@given(entries=st.lists(ENTRIES, min_size=1, max_size=4))
def test_a_file_has_one_line_for_each_run(entries: list[Entry]) -> None:
    assert len(list_lines(entries, now=NOW, width=None, more={})) == 1 + len(entries)
