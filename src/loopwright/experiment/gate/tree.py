"""Functions that visit every dict, list and scalar of a configuration, and build the path of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeGuard

from loopwright.errors import refuse, refuse_type
from loopwright.experiment.gate.budget import Budget

TARGET = "_target_"
ARGS = "_args_"
PARTIAL = "_partial_"
RECURSIVE = "_recursive_"
CONVERT = "_convert_"
SPECIAL_KEYS = frozenset({TARGET, ARGS, PARTIAL, RECURSIVE, CONVERT})

_SCALARS = (str, int, float, bool, type(None))


def join(path: str, key: object) -> str:
    """Return the path of an entry, such as ``model.layers[2].bias`` for the key ``bias`` of ``model.layers[2]``.

    A string key that is not an identifier is quoted, as in ``model['first layer']``.
    """
    if isinstance(key, int) and not isinstance(key, bool):
        return f"{path}[{key}]"
    if isinstance(key, str) and key.isidentifier():
        return f"{path}.{key}" if path else key
    return f"{path}[{key!r}]"


def is_target(node: object) -> TypeGuard[dict[Any, Any]]:
    """Return whether ``node`` is a mapping with a ``_target_``."""
    return isinstance(node, dict) and TARGET in node


def walk(
    tree: object, path: str = "", is_entered: Callable[[dict[Any, Any]], bool] = lambda node: True
) -> Iterator[tuple[str, object]]:
    """Yield the path and the value of every node of a tree. A dict or list is yielded before its entries.

    Args:
        tree: nested dicts, lists and scalars.
        path: path of the tree in the configuration; empty for the whole configuration.
        is_entered: function that receives each dict. If it returns False, the entries of the dict are not visited.

    Raises:
        SettingError: for more than 10,000 values, 1,000,000 characters or 100 levels, and for a key with characters
            that cannot be printed.
        SettingTypeError: for a value that is not a dict, a list, a tuple or a scalar, and for a key that is not a
            scalar.
    """
    budget, root = Budget(), path or "configuration"
    stack: list[tuple[str, object, int]] = [(path, tree, 0)]
    while stack:
        where, node, depth = stack.pop()
        budget.check_depth(root, depth)
        budget.spend_values(root)
        if type(node) is dict:
            for key in node:
                check_key(key, where)
                budget.spend_text(root, len(str(key)))
        elif type(node) is str:
            budget.spend_text(root, len(node))
        yield where, node
        if type(node) is dict:
            if is_entered(node):
                stack.extend((join(where, key), value, depth + 1) for key, value in reversed(node.items()))
        elif isinstance(node, (list, tuple)) and type(node) in (list, tuple):
            stack.extend((join(where, i), node[i], depth + 1) for i in range(len(node) - 1, -1, -1))
        else:
            check_scalar(node, where)


def check_key(key: object, path: str) -> None:
    """Refuse a key that is not a scalar, and a key with unprintable characters, which a terminal would interpret."""
    if type(key) not in _SCALARS:
        raise refuse_type(path or "configuration", key, "keys that are words or numbers")
    if isinstance(key, str) and not key.isprintable():
        raise refuse(path or "configuration", key, "a key of printable characters")


def check_scalar(value: object, path: str) -> None:
    """Refuse a value that is not a string, a number, a bool or None, and a string that cannot be encoded in UTF-8."""
    if type(value) not in _SCALARS:
        given = type(value).__name__
        raise refuse_type(path or "configuration", given, "plain data: a mapping, a list, a string, a number or null")
    if isinstance(value, str) and any("\ud800" <= char <= "\udfff" for char in value if not char.isascii()):
        raise refuse(path or "configuration", value, "text that can be encoded in UTF-8")
