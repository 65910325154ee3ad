"""Functions that find the schedulers whose learning rates depend on the number of steps in an epoch."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from loopwright.plan import Plan, read_epochs, setting_change


def takes_steps_per_epoch(factory: Callable[..., Any]) -> bool:
    """Return whether a callable needs a value for its parameter ``steps_per_epoch``.

    The result is False for the schedulers of torch, because `OneCycleLR` would compute its length from
    ``steps_per_epoch`` and ``epochs``.
    """
    is_bound = _bound(factory).get("steps_per_epoch") is not None
    if is_bound or "steps_per_epoch" not in inspect.signature(factory).parameters:
        return False
    return not _module(factory).startswith("torch.")


def changed_epochs(factories: Iterable[Callable[..., Any]], saved: Mapping[str, Any], plan: Plan) -> list[str]:
    """Return a line if ``loop.steps_per_epoch`` has changed since the save and a scheduler depends on it.

    Args:
        factories: callables that build the schedulers.
        saved: plan settings of the saved run, whose passes are assumed to be as long as the passes of ``plan``.
        plan: plan of the same fit, computed from the settings of the resumed run.
    """
    # A damaged checkpoint may lack ``loop.steps_per_epoch``. `rest_of_run` refuses such a checkpoint.
    old, new = saved.get("loop.steps_per_epoch"), plan.loop_settings.steps_per_epoch
    if (old or plan.passes.steps_per_pass) == plan.steps_per_epoch or not any(map(uses_epochs, factories)):
        return []
    return [f"{setting_change('loop.steps_per_epoch', old, new)}, which a scheduler uses"]


def uses_epochs(factory: Callable[..., Any]) -> bool:
    """Return whether a scheduler may depend on the number of steps in an epoch.

    A schedule in `loopwright.optim` depends on this number only if one of its lengths is in epochs.
    """
    if not takes_steps_per_epoch(factory):
        return False
    values = _bound(factory).values()
    lengths = [each for value in values for each in (value if isinstance(value, list | tuple) else [value])]
    return not _module(factory).startswith("loopwright.optim") or any(map(read_epochs, lengths))


def _bound(factory: Callable[..., Any]) -> Mapping[str, Any]:
    return factory.keywords if isinstance(factory, functools.partial) else {}


def _module(factory: Callable[..., Any]) -> str:
    while isinstance(factory, functools.partial):
        factory = factory.func
    return str(getattr(factory, "__module__", ""))  # an object with __call__ may have no module
