"""Binding of hooks: which methods are called, and which exception is raised when several hooks fail."""

from __future__ import annotations

from typing import Any

import pytest

from loopwright import Callback
from loopwright.engine.hook_table import bind_hooks, close_all, reporting
from loopwright.hooks import HOOKS


def failing(error: BaseException) -> Any:
    """A hook that raises ``error``."""

    def fail(*_: Any) -> None:
        raise error

    return fail


def test_only_overridden_hooks_are_bound() -> None:
    """Catches a call of a base-class method in every step, and a hook set on an instance that is not called."""
    told: list[Any] = []
    instance = Callback()
    instance.setup = told.append  # type: ignore[method-assign]
    hooks = bind_hooks([("plain", Callback()), ("instance", instance)])
    assert set(hooks) == set(HOOKS)
    assert {name for name, bound in hooks.items() if bound} == {"setup"}
    hooks["setup"][0]("trainer")
    assert told == ["trainer"]


def test_a_hook_of_a_validation_loop_need_not_be_in_the_base_class() -> None:
    """Catches a binding that looks up every name in `Callback`."""

    class Probing(Callback):
        def on_probe_start(self, *_: Any) -> None: ...

    hooks = bind_hooks([("plain", Callback()), ("probing", Probing())], ("on_probe_start", "on_probe_end"))
    assert [len(hooks[name]) for name in ("on_probe_start", "on_probe_end")] == [1, 0]


def test_ctrl_c_in_a_hook_is_noted_too() -> None:
    """Catches a note that is added to an `Exception` only."""
    instance = Callback()
    instance.setup = failing(KeyboardInterrupt())  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt) as caught:
        bind_hooks([("mine", instance)])["setup"][0](None)
    assert caught.value.__notes__ == ["Raised in callback mine.setup."]


def test_an_exception_hook_that_fails_does_not_replace_the_exception() -> None:
    """Catches a second error that hides the first, and a first failing hook that keeps the next from being called."""
    told: list[str] = []
    hooks = (failing(KeyError("second")), lambda trainer, error: told.append(f"{trainer}: {error}"))
    with pytest.raises(ZeroDivisionError, match="first") as caught, reporting(hooks, "trainer"):
        raise ZeroDivisionError("first")
    assert caught.value.__notes__ == ["While this exception was reported to callbacks: KeyError: 'second'."]
    assert told == ["trainer: first"]


def test_exception_hooks_are_not_called_for_ctrl_c() -> None:
    """Catches a callback that takes an interrupted run for a failed one."""
    told: list[Any] = []
    with pytest.raises(KeyboardInterrupt), reporting((lambda *args: told.append(args),), None):
        raise KeyboardInterrupt
    assert told == []


@pytest.mark.parametrize("ended_by", [None, ValueError("the run")])
def test_all_hooks_are_closed_and_the_first_error_carries_the_others(ended_by: ValueError | None) -> None:
    """Catches a file left open after another callback failed, and an error that its owner raises a second time."""
    closed: list[str] = []
    hooks = (failing(OSError("disk")), lambda: closed.append("other"), failing(SystemExit(3)))
    if ended_by is None:
        with pytest.raises(OSError, match="disk") as caught:
            close_all(hooks)
        assert caught.value.__notes__ == ["While the trainer was closed: SystemExit: 3."]
    else:
        close_all(hooks, ended_by)
        assert ended_by.__notes__ == [
            "While the trainer was closed: OSError: disk.",
            "While the trainer was closed: SystemExit: 3.",
        ]
    assert closed == ["other"]
