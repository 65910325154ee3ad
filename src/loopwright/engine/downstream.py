"""Downstream validations: callbacks that validate on their own, after the dataloaders."""

from __future__ import annotations

from typing import NamedTuple

from loopwright.engine.hook_table import Hook
from loopwright.engine.parts import Parts
from loopwright.hooks import ValidationCallback, implements


class DownstreamValidation(NamedTuple):
    """A callback's ``run_validation``, with its name in the plan and the validations between two runs of it."""

    name: str
    every_n_vals: int
    hook: Hook


def downstream_validations(parts: Parts) -> list[DownstreamValidation]:
    """Those of the callbacks of ``parts``, in their order."""
    listeners = [(key, callback) for key, callback in parts.callbacks if implements(callback, "run_validation")]
    found = []
    for (key, callback), hook in zip(listeners, parts.hooks["run_validation"], strict=True):
        name, every_n_vals = key, 1
        if isinstance(callback, ValidationCallback):
            name, every_n_vals = callback.name or key, callback.every_n_vals
        found.append(DownstreamValidation(name, every_n_vals, hook))
    return found


def run_downstream(parts: Parts, name: str, hook: Hook, loop_idx: int | None, *, is_last: bool) -> None:
    """Run one downstream validation.

    Whatever it draws comes from streams of its own, so that training is the same without it; what it validates is
    named after it.
    """
    state = parts.state
    outer, state.downstream_name = state.downstream_name, name
    try:
        with parts.streams.branch("downstream", state.global_step, name):
            hook(parts.trainer, loop_idx, is_last)
    finally:
        state.downstream_name = outer
