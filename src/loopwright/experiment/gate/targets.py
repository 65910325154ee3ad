"""`check_targets`, which checks every ``_target_`` in a configuration before any target is imported.

A target is the class or function that a ``_target_`` names.
"""

from __future__ import annotations

from loopwright.errors import SettingError, nearest, refuse, refuse_type
from loopwright.experiment.gate.allow import LISTED_TARGETS
from loopwright.experiment.gate.tree import ARGS, CONVERT, PARTIAL, RECURSIVE, TARGET, is_target, join, walk
from loopwright.experiment.gate.trust import Trust, is_dotted_name

# Accepted values of `_convert_`. With these values, targets receive lists and dicts. With the value `none`, targets
# would receive OmegaConf containers.
_PLAIN_CONVERSIONS = ("all", "partial", "object")


def check_targets(tree: object, trust: Trust, path: str = "") -> None:
    """Refuse a configuration in which a ``_target_`` at any depth is not allowed. No target is imported.

    Args:
        tree: resolved configuration of nested dicts, lists and scalars.
        trust: packages that the user trusts.
        path: path of the tree in the configuration, for messages.

    Raises:
        SettingError: for a target that is neither in `LISTED_TARGETS` nor in a trusted package, for a wrong value of a
            special key such as ``_convert_``, and for a tree that is too large or too deep.
        SettingTypeError: for a target or an argument name that is not a string, and for a value that is not a dict, a
            list or a scalar.
    """
    for where, node in walk(tree, path):
        if is_target(node):
            _check_target(join(where, TARGET), node[TARGET], trust)
            _check_special_keys(where, node)


def _check_target(where: str, name: object, trust: Trust) -> None:
    if type(name) is not str:
        raise refuse_type(where, name, "the dotted name of a class or function")
    if name in LISTED_TARGETS:
        return
    if not is_dotted_name(name) or "." not in name or ".__" in name:
        raise refuse(where, name, "the dotted name of a class or function")
    if trust.package_of(name) is None:
        raise _not_allowed(where, name)


def _not_allowed(where: str, name: str) -> SettingError:
    top = name.partition(".")[0]
    expected = "a class or function that Loopwright allows, or one in a package that you trust"
    if top in ("loopwright", "torch", "torchmetrics"):
        near = nearest(name, (listed for listed in LISTED_TARGETS if listed.startswith(f"{top}.")))
        remedy = f". Did you mean {near}?" if near else "; write a class that calls it, and add --trust PACKAGE."
        return SettingError(where, f"={name!r}: expected {expected}{remedy}")
    return refuse(where, name, expected, f"add --trust {top} only if you trust its code")


def _check_special_keys(where: str, node: dict[object, object]) -> None:
    for key in (PARTIAL, RECURSIVE):
        if key in node and type(node[key]) is not bool:
            raise refuse_type(join(where, key), node[key], "true or false")
    if ARGS in node and not isinstance(node[ARGS], (list, tuple)):
        raise refuse_type(join(where, ARGS), node[ARGS], "a list")
    if CONVERT in node and node[CONVERT] not in _PLAIN_CONVERSIONS:
        raise refuse(join(where, CONVERT), node[CONVERT], "all, partial or object")
    for argument in node:
        if not isinstance(argument, str):
            raise refuse_type(where, argument, "argument names as strings, because _target_ is given")
