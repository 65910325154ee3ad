"""`check_arguments`, which compares all arguments in a configuration with the signatures of their targets.

A target is the class or function that a ``_target_`` names.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from inspect import Parameter

from loopwright.errors import SettingError, did_you_mean, nearest, refuse_type
from loopwright.experiment.gate.accepts import accepts, hints_of, options, say
from loopwright.experiment.gate.locate import locate
from loopwright.experiment.gate.targets import check_targets
from loopwright.experiment.gate.tree import ARGS, PARTIAL, RECURSIVE, SPECIAL_KEYS, TARGET, is_target, join, walk
from loopwright.experiment.gate.trust import Trust

_MISSING = "???"
_BY_POSITION = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_BY_NAME = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


def check_arguments(tree: object, trust: Trust, path: str = "") -> None:
    """Refuse a configuration whose arguments do not fit the signatures of their targets.

    The targets are imported after `check_targets` has accepted all of them. No target is called.

    Args:
        tree: resolved configuration.
        trust: packages that the user trusts.
        path: path of the tree in the configuration, for messages.

    Raises:
        SettingError: for an unknown or missing argument, for an argument of a wrong type, and for a target that
            `check_targets` or `locate` refuses. The message is one line with the path of each wrong argument.
    """
    check_targets(tree, trust, path)
    faults: list[SettingError] = []
    for where, node in walk(tree, path, is_entered=lambda node: node.get(RECURSIVE) is not False):
        if is_target(node):
            try:
                target = locate(node[TARGET], trust, where)
            except SettingError as error:
                faults.append(error)
            else:
                faults.extend(_node_faults(node, target, where))
    if len(faults) == 1:
        raise faults[0]
    if faults:
        first = faults[0]
        raise SettingError(first.setting, " ".join([first.problem, *(str(fault) for fault in faults[1:])]))


def _node_faults(node: Mapping[str, object], target: Callable[..., object], path: str) -> list[SettingError]:
    """Return the errors in the arguments of one node. The arguments of nested targets are not checked."""
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):
        return []  # the target is written in C and has no signature; it checks its arguments when it is called
    hints = _hints(target, parameters)
    given = {key: value for key, value in node.items() if key not in SPECIAL_KEYS}
    positional = node.get(ARGS, ())
    assert isinstance(positional, (list, tuple))
    where_args = join(path, ARGS)
    by_position = [parameter for parameter in parameters.values() if parameter.kind in _BY_POSITION]
    taken = {parameter.name for parameter in by_position[: len(positional)]}
    faults = []
    if len(positional) > len(by_position) and not _has(parameters, Parameter.VAR_POSITIONAL):
        label = f": {_name(target)} takes {len(by_position)} positional arguments, given {len(positional)}."
        faults.append(SettingError(where_args, label))
    for i, (value, parameter) in enumerate(zip(positional, by_position, strict=False)):
        faults.extend(_ill_typed(value, parameter, hints, f"{where_args}[{i}]"))
    for key, value in given.items():
        where = join(path, key)
        if key not in parameters or parameters[key].kind not in _BY_NAME:
            if not _has(parameters, Parameter.VAR_KEYWORD):
                faults.append(_unknown(where, key, value, target, parameters))
        elif key in taken:
            faults.append(SettingError(where, f": given twice, here and in {ARGS}."))
        else:
            faults.extend(_ill_typed(value, parameters[key], hints, where))
    if node.get(PARTIAL) is not True:
        stated = {key for key, value in given.items() if value != _MISSING}
        faults.extend(_missing(parameters, {*stated, *taken}, target, path))
    return faults


def _hints(target: Callable[..., object], parameters: Mapping[str, Parameter]) -> dict[str, object]:
    annotations = {
        name: parameter.annotation
        for name, parameter in parameters.items()
        if parameter.annotation is not Parameter.empty
    }
    function: object = target
    if inspect.isclass(target):
        function = target.__init__ if inspect.isfunction(target.__init__) else target.__new__
    return hints_of(function, annotations)


def _ill_typed(value: object, parameter: Parameter, hints: Mapping[str, object], where: str) -> list[SettingError]:
    if value == _MISSING:
        return []  # `_missing` returns the error for this argument
    is_default = type(value) is type(parameter.default) and value == parameter.default
    if parameter.name not in hints or is_default:
        return []
    if any(is_target(node) for _, node in walk(value)):
        return []  # the type of the object that a target will return is unknown
    hint = hints[parameter.name]
    if accepts(value, hint) is not False:
        return []
    near = nearest(value, options(hint)) if isinstance(value, str) else None
    return [refuse_type(where, value, say(hint), f"Did you mean {near}?" if near else "")]


def _unknown(
    where: str, key: str, value: object, target: Callable[..., object], parameters: Mapping[str, Parameter]
) -> SettingError:
    accepted = [name for name, parameter in parameters.items() if parameter.kind in _BY_NAME]
    listed = ", ".join(accepted) or "none"
    shown = "null" if value is None else repr(value)
    shown = shown if len(shown) <= 80 else shown[:79] + "…"
    return SettingError(
        where, f"={shown}: no such setting of {_name(target)}. Accepted: {listed}.{did_you_mean(key, accepted)}"
    )


def _missing(
    parameters: Mapping[str, Parameter], given: Collection[str], target: Callable[..., object], path: str
) -> list[SettingError]:
    required = [
        name
        for name, parameter in parameters.items()
        if parameter.default is Parameter.empty
        and parameter.kind in (*_BY_POSITION, Parameter.KEYWORD_ONLY)
        and name not in given
    ]
    return [SettingError(join(path, name), f": missing; {_name(target)} needs it.") for name in required]


def _has(parameters: Mapping[str, Parameter], kind: object) -> bool:
    return any(parameter.kind is kind for parameter in parameters.values())


def _name(target: Callable[..., object]) -> str:
    return f"{target.__module__}.{getattr(target, '__qualname__', type(target).__name__)}"
