"""Arguments are checked against the signature of their target before it is called, all of a configuration at once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from inspect import Parameter

from loopwright.errors import SettingError, did_you_mean, nearest, refuse_type
from loopwright.experiment.gate.accepts import accepts, hints_of, options, say
from loopwright.experiment.gate.locate import locate
from loopwright.experiment.gate.targets import check_targets
from loopwright.experiment.gate.tree import ARGS, PARTIAL, RECURSIVE, SPECIAL_KEYS, TARGET, is_target, join
from loopwright.experiment.gate.trust import Trust

_MISSING = "???"
_BY_POSITION = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_BY_NAME = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
_Supplied = Mapping[str, Collection[str]]


def check_arguments(tree: object, trust: Trust, path: str = "", supplied: _Supplied | None = None) -> None:
    """Refuse a configuration whose arguments do not fit the signatures of their targets. Constructs nothing.

    Args:
        tree: the resolved configuration; `check_targets` is run first, then the targets are imported.
        trust: what the user trusts.
        path: where the tree stands, for the message.
        supplied: path of a node → names of the arguments that it will be given at the call.

    Raises:
        SettingError: one line with every fault: unknown, missing and ill-typed arguments, each with its path.
    """
    faults = argument_faults(tree, trust, path, supplied)
    if len(faults) == 1:
        raise faults[0]
    if faults:
        first = faults[0]
        raise SettingError(first.setting, " ".join([first.problem, *(str(fault) for fault in faults[1:])]))


def argument_faults(
    tree: object, trust: Trust, path: str = "", supplied: _Supplied | None = None
) -> list[SettingError]:
    """Every fault that `check_arguments` would tell, one error each, in the order of the configuration."""
    check_targets(tree, trust, path)
    return list(_faults(tree, trust, path, supplied or {}))


def _faults(tree: object, trust: Trust, path: str, supplied: _Supplied) -> list[SettingError]:
    found: list[SettingError] = []
    if isinstance(tree, dict):
        if TARGET in tree:
            try:
                target = locate(tree[TARGET], trust, path)
            except SettingError as error:
                found.append(error)
            else:
                found.extend(node_faults(tree, target, path, supplied.get(path, ())))
        if tree.get(RECURSIVE) is not False:
            for key, value in tree.items():
                found.extend(_faults(value, trust, join(path, key), supplied))
    elif isinstance(tree, (list, tuple)):
        for i, value in enumerate(tree):
            found.extend(_faults(value, trust, f"{path}[{i}]", supplied))
    return found


def node_faults(
    node: Mapping[str, object], target: Callable[..., object], path: str, supplied: Collection[str] = ()
) -> list[SettingError]:
    """The faults of the arguments of one node, without those below it."""
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):
        return []  # written in C without a signature: the call itself will judge
    hints = _hints(target, parameters)
    given = {key: value for key, value in node.items() if key not in SPECIAL_KEYS}
    positional = node.get(ARGS, ())
    assert isinstance(positional, (list, tuple))
    where_args = join(path, ARGS)
    by_position = [parameter for parameter in parameters.values() if parameter.kind in _BY_POSITION]
    taken = {parameter.name for parameter in by_position[: len(positional)]}
    faults = []
    if len(positional) > len(by_position) and not _has(parameters, Parameter.VAR_POSITIONAL):
        label = f": {_name(target)} takes {len(by_position)} arguments by position, given {len(positional)}."
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
        faults.extend(_missing(parameters, {*stated, *taken, *supplied}, target, path))
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
        return []  # told as missing
    if parameter.name not in hints or _holds_target(value) or _is_default(value, parameter):
        return []
    if accepts(value, hints[parameter.name]) is not False:
        return []
    hint = hints[parameter.name]
    near = nearest(value, options(hint)) if isinstance(value, str) else None
    return [refuse_type(where, value, say(hint), f"did you mean {near}" if near else "")]


def _holds_target(value: object) -> bool:
    """Whether ``value`` is, or contains, something that will have been replaced by an object when it is used."""
    if isinstance(value, dict):
        return is_target(value) or any(_holds_target(item) for item in value.values())
    return isinstance(value, (list, tuple)) and any(_holds_target(item) for item in value)


def _is_default(value: object, parameter: Parameter) -> bool:
    return type(value) is type(parameter.default) and value == parameter.default


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
) -> Sequence[SettingError]:
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
