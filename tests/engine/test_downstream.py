"""Downstream validations: their names, and the streams and the state that they run in."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from loopwright import Callback, ValidationCallback
from loopwright.engine.downstream import downstream_validations, run_downstream
from tiny import parts


class Cloze(ValidationCallback):
    """A downstream validation that does nothing."""

    def run_validation(self, *_: Any) -> None: ...


class Plain(Callback):
    """A callback of another base class that validates."""

    def run_validation(self, *_: Any) -> None: ...


def test_each_is_named_and_keeps_its_own_hook() -> None:
    """Catches a hook that is called under the name of another callback."""
    called: list[str] = []
    plain, named, unnamed = Plain(), Cloze(3, "probe"), Cloze(2)
    for callback, text in ((plain, "plain"), (named, "named"), (unnamed, "unnamed")):
        callback.run_validation = lambda *_, text=text: called.append(text)  # type: ignore[method-assign]
    found = downstream_validations(parts(plain, Callback(), named, unnamed))
    assert [(each.name, each.every_n_vals) for each in found] == [("Plain", 1), ("probe", 3), ("Cloze", 2)]
    for each in found:
        each.hook(None, 0, True)
    assert called == ["plain", "named", "unnamed"]


def test_it_draws_the_same_each_time_and_nothing_from_the_training() -> None:
    """Catches a downstream validation that moves the training's random streams, or draws other numbers when resumed."""
    ours = parts()
    drawn: list[float] = []
    with ours.streams.active():
        expected = torch.get_rng_state()
        for name in ("a", "a", "b"):
            run_downstream(ours, name, lambda *_: drawn.append(torch.rand(1).item()), 0, is_last=False)
        assert torch.equal(torch.get_rng_state(), expected)
    assert drawn[0] == drawn[1] != drawn[2]


def test_the_name_is_that_of_the_inner_one_and_is_given_back_after_an_error() -> None:
    """Catches metrics of a later validation under the name of one that failed."""
    ours = parts()
    seen: list[str | None] = []

    def fail(*_: Any) -> None:
        seen.append(ours.state.downstream_name)
        raise RuntimeError("broken")

    def run_inner(*_: Any) -> None:
        with pytest.raises(RuntimeError, match="broken"):
            run_downstream(ours, "inner", fail, None, is_last=True)
        seen.append(ours.state.downstream_name)

    run_downstream(ours, "outer", run_inner, None, is_last=True)
    assert seen == ["inner", "outer"]
    assert ours.state.downstream_name is None
