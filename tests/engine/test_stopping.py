"""`Stopping`: a stop can be requested at any time, and the engine decides about it at certain points."""

from __future__ import annotations

import pytest

from loopwright.engine.stopping import Stopping
from loopwright.run_state import Interruption, RunState


def test_a_request_has_no_effect_before_the_engine_decides() -> None:
    state = RunState()
    stopping = Stopping(state)
    assert not stopping.decide()
    stopping.ask("enough", is_interruption=True)
    assert (state.stop_reason, state.is_interrupted, stopping.reason) == (None, False, "enough")
    assert stopping.decide()
    assert (state.stop_reason, state.is_interrupted) == ("enough", True)


def test_a_decision_is_kept_until_the_next_fit() -> None:
    state = RunState()
    stopping = Stopping(state)
    stopping.ask("enough")
    stopping.decide()
    assert stopping.decide() and not stopping.is_asked
    stopping.end()
    assert stopping.reason == "enough"
    stopping.begin()
    assert not stopping.decide() and stopping.reason is None


def test_a_later_request_replaces_an_earlier_one_but_an_interruption_remains() -> None:
    state = RunState()
    stopping = Stopping(state)
    stopping.ask("SIGTERM", is_interruption=True)
    stopping.ask("no progress")
    stopping.decide()
    assert (state.stop_reason, state.is_interrupted) == ("no progress", True)


def test_only_an_interruption_cuts_a_validation_short() -> None:
    stopping = Stopping(RunState())
    stopping.ask("no progress")
    stopping.decide_in_validation()
    stopping.ask("SIGTERM", is_interruption=True)
    with pytest.raises(Interruption):
        stopping.decide_in_validation()


def test_a_late_request_does_not_affect_the_next_validation() -> None:
    stopping = Stopping(RunState())
    stopping.ask("SIGTERM", is_interruption=True)
    stopping.end()
    stopping.decide_in_validation()


def test_a_second_signal_is_raised_again() -> None:
    stopping = Stopping(RunState())
    stopping.leave_at_once()
    stopping.exit = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        stopping.leave_at_once()
