"""Builds the model, the optimizer, the schedulers and the named callbacks of a run from the arguments of a trainer."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from loopwright.errors import SettingError, SettingTypeError, refuse_type
from loopwright.hooks import Callback, Logger, implements
from loopwright.plan import Plan
from loopwright.protocols import StatefulScheduler

SchedulerSpec = tuple[Callable[..., Any], str | None]


def build_model(model: Any) -> nn.Module:
    """Return a module: ``model`` itself, or the module that ``model()`` returns.

    Raises:
        SettingTypeError: if ``model`` is neither a module nor a callable that returns one.
    """
    made = model if isinstance(model, nn.Module) else model() if callable(model) else None
    if not isinstance(made, nn.Module):
        raise refuse_type("model", model if made is None else made, "a torch module, or a callable that makes one")
    return made


def build_optimizer(optimizer: Any, model: nn.Module, *, is_given_model: bool) -> Optimizer | None:
    """Return the optimizer of the parameters of ``model``.

    Args:
        optimizer: an optimizer instance; or a callable of the parameters. A callable with a parameter
            ``named_parameters`` is called with pairs of name and parameter.
        model: the module, as `build_model` returned it.
        is_given_model: whether the module was given to the trainer, and not made by a callable. An optimizer instance
            needs a module that existed before it.

    Raises:
        SettingTypeError: if the optimizer has a wrong type, or has parameters that are not in the model.
        SettingError: as the callable raises it; also if the model has no parameters.
    """
    if optimizer is None:
        return None
    if isinstance(optimizer, Optimizer):
        _check_no_closure(optimizer)
        owned = {id(parameter) for parameter in model.parameters()}
        given = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if not is_given_model or any(id(parameter) not in owned for parameter in given):
            raise SettingTypeError(
                "optimizer",
                f"={type(optimizer).__name__}(…): an instance over parameters that are not the model's; expected a "
                "callable of the parameters (in a configuration: _partial_: true).",
            )
        return optimizer
    made = None
    if callable(optimizer):
        try:
            made = make_optimizer(optimizer, model)
        except SettingError as error:
            raise error.under("optimizer") from error
        except ValueError as error:
            if next(model.parameters(), None) is None:  # the message of torch does not name the model
                problem = f"={type(model).__name__}(…): expected parameters to be trained; it has none."
                raise SettingError("model", problem) from error
            raise
    if not isinstance(made, Optimizer):
        given_or_made = optimizer if made is None else made
        remedy = "in a configuration: _partial_: true"
        raise refuse_type("optimizer", given_or_made, "a callable of the parameters that makes an optimizer", remedy)
    _check_no_closure(made)
    return made


def _check_no_closure(optimizer: Optimizer) -> None:
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        name = type(optimizer).__name__
        raise SettingTypeError("optimizer", f"={name}(…): expected one whose step needs no closure; {name}'s does.")


def make_optimizer(factory: Callable[..., Any], model: nn.Module) -> Any:
    """Call ``factory`` with the parameters of ``model``; with their names if it has a ``named_parameters``."""
    try:
        takes_names = "named_parameters" in inspect.signature(factory).parameters
    except (TypeError, ValueError):
        takes_names = False  # a function written in C may have no signature
    return factory(named_parameters=model.named_parameters()) if takes_names else factory(model.parameters())


def read_schedulers(schedulers: Any) -> list[SchedulerSpec]:
    """Return (callable of the optimizer, metric or None) for each scheduler.

    Raises:
        SettingTypeError: for anything else than callables, and mappings with ``scheduler`` and ``monitor``.
    """
    if schedulers is None:
        return []
    specs: list[SchedulerSpec] = []
    for entry in schedulers if isinstance(schedulers, list | tuple) else [schedulers]:
        is_monitored = isinstance(entry, Mapping) and set(entry) == {"scheduler", "monitor"}
        factory, monitor = (entry["scheduler"], entry["monitor"]) if is_monitored else (entry, None)
        if not callable(factory) or not isinstance(monitor, str | None):
            expected = "callables of the optimizer, or mappings with scheduler and monitor"
            raise refuse_type("schedulers", entry, expected, "in a configuration: _partial_: true")
        specs.append((factory, monitor))
    return specs


def check_monitored(specs: Sequence[SchedulerSpec], plan: Plan) -> None:
    """Refuse a scheduler that is stepped with a metric of the validations if the plan has no validations.

    Raises:
        SettingError: with the arguments that are missing.
    """
    if any(monitor is not None for _, monitor in specs) and plan.eval_every is None and plan.total_steps:
        raise SettingError(
            "schedulers",
            ": one is stepped with a metric of the validations, and this plan has none; "
            "give val_dataloader and eval_frequency.",
        )


def build_scheduler(spec: SchedulerSpec, optimizer: Optimizer, total_steps: int) -> StatefulScheduler:
    """Make a scheduler. If its callable takes ``total_steps`` and has no length yet, it gets the steps of the plan.

    Raises:
        SettingTypeError: if the callable does not return a scheduler, or if the scheduler needs a metric and has no
            ``monitor``.
    """
    factory, monitor = spec
    scheduler = factory(optimizer, total_steps=total_steps) if is_told_total(factory) else factory(optimizer)
    if not hasattr(scheduler, "step"):
        raise refuse_type("schedulers", scheduler, "schedulers, which have a method step")
    if isinstance(scheduler, ReduceLROnPlateau) and monitor is None:
        raise SettingTypeError(
            "schedulers", '=ReduceLROnPlateau(…): expected {"scheduler": …, "monitor": metric}, as it needs a metric.'
        )
    made: StatefulScheduler = scheduler
    return made


def is_told_total(factory: Callable[..., Any]) -> bool:
    """Tell whether the callable of a scheduler takes ``total_steps``, and neither these nor epochs are bound yet."""
    bound = factory.keywords if isinstance(factory, functools.partial) else {}
    has_length = any(bound.get(name) is not None for name in ("total_steps", "epochs"))
    return not has_length and "total_steps" in inspect.signature(factory).parameters


def name_callbacks(given: Any, kind: type[Callback], setting: str) -> list[tuple[str, Any]]:
    """Return (name, callback) for callbacks in a mapping, or in a list, where the class is the name.

    Raises:
        SettingTypeError: for an object that is not of class ``kind``, and for a logger among the callbacks.
    """
    if not isinstance(given, Mapping | Sequence | None):
        raise refuse_type(setting, given, f"a list or a mapping of objects of class {kind.__name__}")
    entries = given.items() if isinstance(given, Mapping) else [(None, entry) for entry in given or ()]
    named = []
    for name, entry in entries:
        if not isinstance(entry, kind):
            raise refuse_type(setting, entry, f"objects of class {kind.__name__}")
        if kind is Callback and isinstance(entry, Logger):
            raise refuse_type(setting, entry, "callbacks", "give loggers as loggers=[…]")
        named.append((type(entry).__name__ if name is None else str(name), entry))
    return named


def stateful_callbacks(callbacks: Sequence[tuple[str, Callback]]) -> dict[str, Callback]:
    """Return the callbacks that have a state, without the loggers, by the key of their state.

    Raises:
        SettingError: if two of them share a name.
    """
    return _stateful([(name, callback) for name, callback in callbacks if not isinstance(callback, Logger)])


def stateful_loggers(callbacks: Sequence[tuple[str, Callback]]) -> dict[str, Callback]:
    """Return the loggers that have a state, by the key of their state.

    Raises:
        SettingError: if two of them share a name.
    """
    return _stateful([(name, callback) for name, callback in callbacks if isinstance(callback, Logger)])


def _stateful(callbacks: Sequence[tuple[str, Callback]]) -> dict[str, Callback]:
    stateful: dict[str, Callback] = {}
    for name, callback in callbacks:
        if implements(callback, "state_dict"):
            if name in stateful:
                kind = "loggers" if isinstance(callback, Logger) else "callbacks"
                raise SettingError(
                    kind, f": two of them keep state under the name {name}; give a mapping from names to {kind}."
                )
            stateful[name] = callback
    return stateful
