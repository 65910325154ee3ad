"""Functions that find and run downstream validations.

A downstream validation is a callback that implements ``run_validation``.
"""

from __future__ import annotations

from typing import NamedTuple

from loopwright.engine.hook_table import Hook
from loopwright.engine.parts import Parts
from loopwright.hooks import ValidationCallback, implements


class DownstreamValidation(NamedTuple):
    """A downstream validation.

    Attributes:
        name: name of the validation in the plan.
        every_n_vals: interval between two runs, in rounds of validations.
        hook: bound method ``run_validation`` of the callback.
    """

    name: str
    every_n_vals: int
    hook: Hook


def downstream_validations(parts: Parts) -> list[DownstreamValidation]:
    """Return the downstream validations of ``parts.callbacks``, in the order of the callbacks."""
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

    The validation uses separate random streams, so it does not change the random numbers of training. If the hook
    validates dataloaders, the names of their metrics begin with ``name``.
    """
    state = parts.state
    outer, state.downstream_name = state.downstream_name, name
    try:
        with parts.streams.branch("downstream", state.global_step, name), parts.log.collecting() as metrics:
            hook(parts.trainer, loop_idx, is_last)
        parts.log.share(metrics)
    finally:
        state.downstream_name = outer
