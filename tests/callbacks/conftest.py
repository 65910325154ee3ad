"""A clock that tests of measuring callbacks move."""

from __future__ import annotations

import types

import pytest

from loopwright.engine import clock


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds that the clock of a fit reads; a test changes its one entry."""
    time = [0.0]
    monkeypatch.setattr(clock, "time", types.SimpleNamespace(perf_counter=lambda: time[0]))
    return time
