"""The one place where a configuration becomes objects.

Every target passes the allow-list before it is imported and its arguments are checked before it is called. Hydra then
looks the target up, so that its own list of forbidden targets is a second fence. It is handed the name alone: values
that have been resolved and checked once are never interpolated again.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import hydra.utils
from hydra.errors import HydraException

from loopwright.errors import SettingError
from loopwright.experiment.gate.call_arguments import check_arguments
from loopwright.experiment.gate.locate import locate
from loopwright.experiment.gate.targets import check_call
from loopwright.experiment.gate.tree import ARGS, PARTIAL, RECURSIVE, SPECIAL_KEYS, TARGET, join
from loopwright.experiment.gate.trust import Trust

# What a target raises that was given wrong arguments; torch raises a plain RuntimeError. Others are no setting's fault:
# a full disk, a damaged checkpoint, a mistake in the class.
_SETTING_FAULTS = (ValueError, TypeError, AssertionError, ArithmeticError, LookupError, ImportError, HydraException)


def instantiate(node: object, trust: Trust, path: str = "", call: Mapping[str, object] | None = None) -> object:
    """Build what a node of a resolved configuration describes.

    Args:
        node: plain data. A mapping with ``_target_`` becomes what the target returns, or a `functools.partial` of it
            for ``_partial_: true``; other mappings and lists are built entry by entry; scalars stay.
        trust: what the user trusts.
        path: where the node stands in the configuration, for messages.
        call: further arguments for the node's own target; they win over the node's.

    Returns:
        The object. Containers are new plain dicts and lists.

    Raises:
        SettingError: for everything that `check_targets` and `check_arguments` refuse, and for what a target raises
            that refuses its arguments, with the path of its node. Other exceptions pass, with a note.
    """
    call = dict(call or {})
    check_call(call, path)
    check_arguments(node, trust, path, {path: tuple(call)})
    if call and not (isinstance(node, dict) and TARGET in node):
        raise SettingError(path, ": arguments at the call need a _target_ to take them.")
    return _build(node, trust, path, call)


@dataclass(frozen=True, slots=True)
class Factory:
    """A node that is built anew, nested nodes included, by each call."""

    node: object
    trust: Trust
    path: str

    def __call__(self) -> object:
        """Build the node."""
        return instantiate(self.node, self.trust, self.path)


def factory(node: object, trust: Trust, path: str = "") -> Factory:
    """Check a node now and build it later: what a `Trainer` is given as its model.

    Raises:
        SettingError: as `instantiate`, for the checks.
    """
    check_arguments(node, trust, path)
    return Factory(node, trust, path)


def _build(node: object, trust: Trust, path: str, call: Mapping[str, object]) -> object:
    if isinstance(node, (list, tuple)):
        return [_build(value, trust, f"{path}[{i}]", {}) for i, value in enumerate(node)]
    if not isinstance(node, dict):
        return node
    if TARGET not in node:
        return {key: _build(value, trust, join(path, key), {}) for key, value in node.items()}
    is_recursive = node.get(RECURSIVE, True)
    positional = [
        _build(value, trust, f"{join(path, ARGS)}[{i}]", {}) if is_recursive else _copy(value)
        for i, value in enumerate(node.get(ARGS, ()))
    ]
    named = {
        key: _build(value, trust, join(path, key), {}) if is_recursive else _copy(value)
        for key, value in node.items()
        if key not in SPECIAL_KEYS and key not in call
    }
    named.update(call)
    target = locate(node[TARGET], trust, path)
    fenced = _through_hydra(node[TARGET], target, path)
    if node.get(PARTIAL):
        # Not Hydra's own kind of partial: that of 1.4 cannot be pickled, and hides its function from a reader.
        return functools.partial(target, *positional, **named)
    return _call(fenced, positional, named, node[TARGET], path)


def _through_hydra(name: str, target: Callable[..., object], path: str) -> Callable[..., object]:
    """The target as Hydra finds it, which must be the one that was checked."""
    try:
        with warnings.catch_warnings():
            # 1.4 asks for an allow-list of its own here, whose name is not settled; ours has been applied.
            warnings.filterwarnings("ignore", message=r"hydra\.utils\.instantiate\(\) resolved", category=UserWarning)
            found = hydra.utils.instantiate({TARGET: name, PARTIAL: True})
    except HydraException as error:
        raise SettingError(join(path, TARGET), f"={name!r}: refused by Hydra: {_first_line(error)}") from error
    if not isinstance(found, functools.partial) or found.func is not target:
        raise SettingError(
            join(path, TARGET), f"={name!r}: expected one object of that name; it changed while loading."
        )
    return found


def _call(
    target: Callable[..., object], positional: list[object], named: dict[str, object], name: str, path: str
) -> object:
    try:
        return target(*positional, **named)
    except SettingError as error:
        raise error.under(path) from error
    except Exception as error:
        if isinstance(error, _SETTING_FAULTS) or type(error) is RuntimeError:
            raise SettingError(path or name, f": {name} refused its arguments: {_first_line(error)}") from error
        error.add_note(f"Raised while {name} was built for {path or 'the configuration'}.")
        raise


def _copy(value: object) -> object:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, (list, tuple)) else value


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
